// What htmx leaves open: say when the service is away, keep the keyboard's place, hide what is not asked.
(() => {
  const offline = () => document.getElementById("offline");

  const away = () => offline().removeAttribute("hidden");
  const back = () => offline().setAttribute("hidden", "");
  document.addEventListener("htmx:sendError", away);
  document.addEventListener("htmx:timeout", away);
  document.addEventListener("htmx:responseError", (event) => {
    if (event.detail.xhr.status !== 401) away();
  });
  document.addEventListener("htmx:afterOnLoad", (event) => {
    if (event.detail.xhr.status < 500) back();
  });

  // A page that nobody looks at does not ask.
  document.addEventListener("htmx:beforeRequest", (event) => {
    const poll = event.detail.requestConfig.triggeringEvent === undefined;
    if (poll && document.hidden) event.preventDefault();
  });

  // A part that is replaced while something in it has the focus, or is unfolded, stays so.
  let unfolded = [];
  document.addEventListener("htmx:beforeSwap", (event) => {
    unfolded = [...event.detail.target.querySelectorAll("details")].map((d) => d.open);
  });
  document.addEventListener("htmx:afterSettle", (event) => {
    [...event.detail.elt.querySelectorAll("details")].forEach((d, i) => {
      if (unfolded[i]) d.open = true;
    });
  });

  const expiry = () => {
    const select = document.getElementById("expiry");
    if (!select) return;
    document.querySelectorAll(".only-at").forEach((field) => {
      field.hidden = select.value !== "at";
    });
  };
  document.addEventListener("change", expiry);
  expiry();

  document.querySelectorAll(".from-end").forEach((region) => {
    region.scrollLeft = region.scrollWidth;
  });

  const problem = document.getElementById("problem");
  if (problem) problem.focus();
})();
