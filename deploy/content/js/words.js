// How the live page writes times, numbers and names.

export const known = (value) => (value === null || value === undefined || value === "" ? "not known" : String(value));
export const count = (number, word) => `${number.toLocaleString("en")} ${word}${number === 1 ? "" : "s"}`;
export const cut = (text, most) => (text.length > most ? `${text.slice(0, most - 1)}…` : text);
export const clock = (time) => new Date(time).toLocaleTimeString("en-GB");

export function span(milliseconds) {
  const seconds = Math.max(0, Math.floor(milliseconds / 1000));
  if (seconds < 60) return `${seconds} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ${seconds % 60} s`;
  if (seconds < 86400) return `${Math.floor(seconds / 3600)} h ${Math.floor((seconds % 3600) / 60)} min`;
  return `${Math.floor(seconds / 86400)} d ${Math.floor((seconds % 86400) / 3600)} h`;
}

export function bytes(number) {
  if (number < 1024) return `${number} B`;
  return number < 1048576 ? `${(number / 1024).toFixed(1)} KiB` : `${(number / 1048576).toFixed(1)} MiB`;
}

export function host(url) {
  try { return new URL(url).host || url; } catch { return url; }
}

// An element with a class, words and children.
export function make(tag, { class: name, text, ...rest } = {}, ...children) {
  const element = Object.assign(document.createElement(tag), rest);
  if (name) element.className = name;
  if (text !== undefined) element.textContent = text;
  element.append(...children);
  return element;
}
