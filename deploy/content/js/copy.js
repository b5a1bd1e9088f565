// Copy buttons on blocks of commands. What is copied is what is typed: the lines after `$` and `>`, without what they print.
"use strict";
for (const figure of document.querySelectorAll("figure.commands")) {
  const typed = figure.querySelector("code").textContent.split("\n")
    .filter((line) => /^[$>] /.test(line)).map((line) => line.slice(2)).join("\n");
  if (!typed || !navigator.clipboard) continue;
  const button = document.createElement("button");
  button.type = "button";
  button.textContent = "Copy";
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(typed + "\n");
      button.textContent = "Copied";
    } catch {
      button.textContent = "Select and copy by hand";
    }
    setTimeout(() => { button.textContent = "Copy"; }, 2000);
  });
  figure.prepend(button);
}
