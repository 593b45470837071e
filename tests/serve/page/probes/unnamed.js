// Every control without a name for a screen reader, every image without a text.
const named = (node) =>
  node.labels?.length || node.getAttribute("aria-label") || node.getAttribute("aria-labelledby") || node.textContent.trim();
const controls = [...document.querySelectorAll("input, select, textarea, button, a, progress, video")];
const images = [...document.querySelectorAll("img")];
return controls.filter((node) => !named(node)).concat(images.filter((node) => !node.hasAttribute("alt"))).map((node) => node.outerHTML);
