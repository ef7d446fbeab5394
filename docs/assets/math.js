// Sets what arithmatex left as \(...\) and \[...\], with the KaTeX that lies beside this file.
// On a phone a formula may break. One of several parts shall do so between them: braces keep each part together.
const inParts = (tex) => {
  const parts = tex.includes("\\begin") ? [tex] : tex.split("\\qquad");
  return parts.length === 1 ? tex : parts.map((part) => `{${part}}`).join("\\qquad\\allowbreak ");
};

document$.subscribe(() => {
  for (const element of document.querySelectorAll(".arithmatex")) {
    const text = element.textContent.trim();
    katex.render(inParts(text.slice(2, -2)), element, { displayMode: text.startsWith("\\["), throwOnError: false });
  }
});
