// Sets what arithmatex left as \(...\) and \[...\], with the KaTeX that lies beside this file.
// On a phone a formula may break. One of several parts shall do so between them: braces keep each part together.
const inParts = (tex) => {
  const parts = tex.includes("\\begin") ? [tex] : tex.split("\\qquad");
  return parts.length === 1 ? tex : parts.map((part) => `{${part}}`).join("\\qquad\\allowbreak ");
};

// A line does not begin with the comma that follows a formula.
const keepTogether = (formula) => {
  const after = formula.nextSibling;
  const sign = after?.nodeType === Node.TEXT_NODE && after.data.match(/^[,.;:?!)]+/);
  if (!sign) return;
  const whole = document.createElement("span");
  whole.className = "formula-and-sign";
  after.splitText(sign[0].length);
  formula.replaceWith(whole);
  whole.append(formula, after);
};

document$.subscribe(() => {
  for (const element of document.querySelectorAll(".arithmatex")) {
    const text = element.textContent.trim();
    const displayMode = text.startsWith("\\[");
    katex.render(inParts(text.slice(2, -2)), element, { displayMode, throwOnError: false });
    if (!displayMode) keepTogether(element);
  }
});
