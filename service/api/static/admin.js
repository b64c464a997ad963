// What htmx leaves open where people read and write in pages that refresh themselves: nobody loses
// a press, a place, a mark or a text, and what is shown agrees with what was asked for.
(() => {
  const offline = () => document.getElementById("offline");

  // What a form asked for in vain is asked for once more: else it would say one thing, and what
  // belongs to it another.
  const again = (forms) => {
    for (const form of forms) {
      forms.delete(form);
      htmx.trigger(form, "again");
    }
  };
  const formOf = (event) => {
    const { elt, triggeringEvent } = event.detail.requestConfig;
    return triggeringEvent?.type !== "again" && elt.matches("form[hx-trigger*=again]") ? elt : null;
  };

  const unanswered = new Set();
  const away = (event) => {
    offline().removeAttribute("hidden");
    if (formOf(event)) unanswered.add(formOf(event));
  };
  document.addEventListener("htmx:sendError", away);
  document.addEventListener("htmx:timeout", away);
  document.addEventListener("htmx:responseError", (event) => {
    if (event.detail.xhr.status >= 500) away(event);
  });
  document.addEventListener("htmx:afterOnLoad", (event) => {
    if (event.detail.xhr.status >= 500) return;
    offline().setAttribute("hidden", "");
    unanswered.delete(event.detail.requestConfig.elt);
    again(unanswered);
  });

  // With the session over the page is loaded anew, but not over what somebody has written.
  document.addEventListener("htmx:beforeOnLoad", (event) => {
    if (event.detail.xhr.status !== 401) return;
    const texts = document.querySelectorAll("form[method=post] :is(textarea, input:not([type]))");
    if (![...texts].some((field) => field.value.trim())) return;
    event.preventDefault();
    document.getElementById("session-over").removeAttribute("hidden");
  });

  // A page that nobody looks at does not ask. What is being pressed is not replaced, nor moved by
  // what comes above it: the press would be lost. Nor does a poll replace what somebody has asked
  // to see instead: the answer would no longer find its place. The next poll has it, and a form
  // asks again.
  const isPoll = (event) => event.detail.requestConfig.triggeringEvent === undefined;
  // Who has marked a text means to copy it; a minute is enough, since a mark may be forgotten.
  const MARKED_FOR_MS = 60000;
  let markedAt = -Infinity;
  document.addEventListener("selectionchange", (event) => (markedAt = event.timeStamp));
  const isMarked = (event) =>
    !getSelection().isCollapsed && event.timeStamp - markedAt < MARKED_FOR_MS;

  const held = new Set();
  let isPressed = false;
  document.addEventListener("pointerdown", (event) => (isPressed = event.button === 0), true);
  const released = () => {
    isPressed = false;
    again(held);
  };
  for (const end of ["pointerup", "pointercancel", "contextmenu"]) {
    document.addEventListener(end, released, true);
  }
  document.addEventListener("htmx:beforeRequest", (event) => {
    if (isPoll(event) && document.hidden) event.preventDefault();
  });
  document.addEventListener("htmx:beforeSwap", (event) => {
    const isAwaited = document.getElementById("progress").classList.contains("htmx-request");
    const form = formOf(event);
    if (isPressed && form) held.add(form);
    const isKept = isPressed || isAwaited || isMarked(event);
    if (isPoll(event) ? isKept : isPressed && form) event.detail.shouldSwap = false;
  });

  // Parts that are replaced keep what is unfolded in them, how far they are scrolled, and the
  // keyboard's place.
  let unfolded = [];
  let scrolled = [];
  let place = null;
  const sideways = () => [...document.querySelectorAll(".scroll[id]")];
  const placeOf = (element) => {
    const part = element.parentElement && element.parentElement.closest("[id]");
    if (!part) return null;
    const href = element.getAttribute("href");
    const which = element.id ? `#${CSS.escape(element.id)}` : element.localName;
    return { part: part.id, which: href && !element.id ? `a[href="${CSS.escape(href)}"]` : which };
  };
  document.addEventListener("htmx:beforeSwap", () => {
    unfolded = [...document.querySelectorAll("details[id][open]")].map((d) => d.id);
    scrolled = sideways().map((region) => [region.id, region.scrollLeft]);
    place = placeOf(document.activeElement);
  });
  document.addEventListener("htmx:afterSettle", () => {
    unfolded.forEach((id) => document.getElementById(id)?.setAttribute("open", ""));
    scrolled.forEach(([id, left]) => {
      const region = document.getElementById(id);
      if (region) region.scrollLeft = left;
    });
    if (!place || document.activeElement !== document.body) return;
    const part = document.getElementById(place.part);
    const found = part && part.querySelector(place.which);
    (found || part?.closest("[tabindex]"))?.focus({ preventScroll: true });
  });

  // Numbers that the preview complains about are marked where they are entered, too.
  document.addEventListener("htmx:afterSettle", () => {
    document.querySelectorAll("#what-if input[id]").forEach((input) => {
      const wrong = document.querySelector(`#preview a[href="#${input.id}"]`);
      if (wrong) input.setAttribute("aria-invalid", "true");
      else input.removeAttribute("aria-invalid");
    });
  });

  // Who clicks twice means it once; the second would find that somebody had been faster. Not for
  // ever, since what was sent can be stopped.
  const SENT_ONCE_IN_MS = 5000;
  const sentAt = new WeakMap();
  document.addEventListener("submit", (event) => {
    const form = event.target;
    if (form.method !== "post" || form.hasAttribute("hx-post")) return;
    if (event.timeStamp - (sentAt.get(form) ?? -Infinity) < SENT_ONCE_IN_MS) event.preventDefault();
    else sentAt.set(form, event.timeStamp);
  });
  window.addEventListener("pageshow", (event) => {
    if (event.persisted) for (const form of document.forms) sentAt.delete(form);
  });

  // What is saved is what the preview tells of, not what has been entered since, nor while
  // it was on its way.
  const holdStale = () => {
    const told = [...document.querySelectorAll("#preview input[type=hidden][name]")];
    const entered = (name) => document.querySelector(`#what-if #${CSS.escape(name)}`);
    const isStale = told.some((i) => entered(i.name) && entered(i.name).value !== i.value);
    document.querySelectorAll("#preview [type=submit]").forEach((button) => {
      button.disabled = isStale;
    });
  };
  document.addEventListener("input", holdStale);
  document.addEventListener("htmx:afterSettle", holdStale);

  const expiry = () => {
    const select = document.getElementById("expiry");
    if (!select) return;
    document.querySelectorAll(".only-at").forEach((field) => {
      field.hidden = select.value !== "at";
    });
  };
  document.addEventListener("change", expiry);
  // Who comes back finds what was chosen before, which the browser puts in only now.
  window.addEventListener("pageshow", expiry);
  expiry();

  document.querySelectorAll(".from-end").forEach((region) => {
    region.scrollLeft = region.scrollWidth;
  });

  // What was done is said once: not after a reload, nor on the way back, when it may be undone.
  const address = new URL(location.href);
  if (address.searchParams.has("done")) {
    address.searchParams.delete("done");
    history.replaceState(history.state, "", address);
  }

  const problem = document.getElementById("problem");
  if (problem) problem.focus();
})();
