// Copy buttons. On a block of commands, what is copied is what is typed: the lines after `$` and `>`, without what they print.

// A button that copies a text; null where a page may not: on plain HTTP from another machine.
export function copyButton(text, label = "Copy") {
  if (!navigator.clipboard) return null;
  const button = document.createElement("button");
  button.type = "button";
  button.textContent = label;
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(text);
      button.textContent = "Copied";
    } catch {
      button.textContent = "Select and copy by hand";
    }
    setTimeout(() => { button.textContent = label; }, 2000);
  });
  return button;
}

for (const figure of document.querySelectorAll("figure.commands")) {
  const typed = figure.querySelector("code").textContent.split("\n")
    .filter((line) => /^[$>] /.test(line)).map((line) => line.slice(2)).join("\n");
  const button = typed && copyButton(typed + "\n");
  if (button) figure.prepend(button);
}
