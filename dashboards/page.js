// A chart that is wider than its place scrolls; it can be reached and scrolled by keyboard too.
(() => {
  if (window.assayReach) return;
  const reach = () => {
    for (const one of document.querySelectorAll('[data-testid="stVegaLiteChart"]')) {
      const wide = one.scrollWidth > one.clientWidth + 1;
      if (wide && one.tabIndex !== 0) one.tabIndex = 0;
      if (!wide && one.hasAttribute('tabindex')) one.removeAttribute('tabindex');
    }
  };
  window.assayReach = setInterval(reach, 1000);
})();
