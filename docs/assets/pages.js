// A picture that has to be pushed sideways says so (site.css), and a frame is as high as what it shows.
document$.subscribe(() => {
  const widths = new ResizeObserver((changes) => {
    for (const { target } of changes) target.classList.toggle("scrolls", target.scrollWidth > target.clientWidth + 1);
  });
  for (const picture of document.querySelectorAll(".picture")) widths.observe(picture);
});

// A frame's own load event does not bubble; it can be caught on its way down. So this holds for frames that come later, too.
document.addEventListener(
  "load",
  ({ target: frame }) => {
    const inside = frame.matches?.("iframe.explorer") && frame.contentDocument?.documentElement; // none of a page from a file
    if (!inside) return;
    new ResizeObserver(() => {
      frame.style.height = `${inside.offsetHeight + frame.offsetHeight - frame.clientHeight}px`;
    }).observe(inside);
  },
  true,
);
