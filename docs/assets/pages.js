// A picture that has to be pushed sideways says so (site.css), and a frame is as high as what it shows.
document$.subscribe(() => {
  const widths = new ResizeObserver((changes) => {
    for (const { target } of changes) target.classList.toggle("scrolls", target.scrollWidth > target.clientWidth + 1);
  });
  for (const picture of document.querySelectorAll(".picture")) widths.observe(picture);

  for (const frame of document.querySelectorAll("iframe.explorer")) {
    const fit = () => {
      const inside = frame.contentDocument?.body; // none where pages are opened from files
      if (!inside) return;
      const heights = new ResizeObserver(() => {
        frame.style.height = `${frame.contentDocument.documentElement.offsetHeight + frame.offsetHeight - frame.clientHeight}px`;
      });
      heights.observe(frame.contentDocument.documentElement);
    };
    frame.addEventListener("load", fit);
    if (frame.contentDocument?.readyState === "complete") fit();
  }
});
