// Numbers as people read them, and elements without markup.
export function el(tag, attributes, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children); // strings become text nodes
  return node;
}

export const percent = (share) => `${Math.round(100 * Math.min(1, Math.max(0, share)))} %`;

export function seconds(s) {
  if (s < 10) return `${s.toFixed(1)} s`;
  if (s < 100) return `${Math.round(s)} s`;
  if (s < 5400) return `${Math.round(s / 60)} min`;
  return `${(s / 3600).toFixed(1)} h`;
}

export function usd(amount) {
  if (amount === 0) return "free";
  if (amount < 0.0001) return "< $0.0001";
  return `$${amount.toFixed(amount < 0.01 ? 4 : amount < 1 ? 3 : 2)}`;
}

export function clock(instant) {
  const at = new Date(instant), today = new Date().toDateString() === at.toDateString();
  return at.toLocaleString([], today ? { hour: "2-digit", minute: "2-digit" } : { month: "short", day: "numeric", hour: "2-digit", minute: "2-digit" });
}

// A thousandth is enough of a second, of a picture's side and of a slider.
export const round = (value) => Math.round(value * 1000) / 1000;

// Within the picture.
export const within = (share) => Math.min(1, Math.max(0, share));
