// Sets the colours before anything is drawn; a classic script in the head, so that no page flashes.
(function () {
  try {
    const chosen = localStorage.getItem("mole.theme");
    if (chosen === "light" || chosen === "dark") document.documentElement.dataset.theme = chosen;
  } catch {
    // Storage is switched off: the system's colours it is.
  }
})();
