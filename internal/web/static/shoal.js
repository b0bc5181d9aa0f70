"use strict";

// The code of a one-time link stands behind the #, which browsers keep to themselves.
(function link() {
  const form = document.getElementById("linkform");
  const text = location.hash.slice(1);
  if (!form || !/^[^.]+\.[0-9a-z]{32}$/.test(text)) return;
  history.replaceState(null, "", location.pathname); // not in the history
  document.getElementById("code").value = text;
  document.getElementById("linkcode").hidden = true;
  const says = document.getElementById("linkfor");
  says.querySelector("strong").textContent = text.slice(0, text.lastIndexOf("."));
  says.hidden = false;
  form.querySelector("button").focus();
})();

// How far a start is: the server answers when there is news.
(function start() {
  const page = document.getElementById("start");
  if (!page) return;
  const bar = document.getElementById("bar");
  const sentence = document.getElementById("sentence");
  const began = Date.now() - Number(page.dataset.elapsed) * 1000;
  const tick = () => {
    const seconds = Math.round((Date.now() - began) / 1000);
    document.getElementById("elapsed").textContent = seconds + (seconds === 1 ? " second" : " seconds") + " so far.";
    if (!bar.max || !bar.hasAttribute("value")) return;
    if (seconds < bar.max) bar.value = seconds;
    else bar.removeAttribute("value"); // it takes longer than usual: nobody knows how far it is
  };
  setInterval(tick, 1000);
  let rev = page.dataset.rev;
  let wait = 500;
  const ask = async () => {
    const url = new URL(page.dataset.poll, location.href);
    url.searchParams.set("rev", rev);
    try {
      const answer = await fetch(url, { headers: { Accept: "application/json" }, redirect: "error", cache: "no-store" });
      if (answer.status !== 202) { // it runs, it ended, or one has to sign in: the page says it
        location.reload();
        return;
      }
      const far = await answer.json();
      wait = String(far.rev) === rev ? Math.min(wait * 2, 5000) : 500;
      rev = String(far.rev);
      const says = far.sentence.charAt(0).toUpperCase() + far.sentence.slice(1) + ".";
      if (sentence.textContent !== says) sentence.textContent = says;
    } catch {
      wait = Math.min(wait * 2, 5000); // the server may be starting anew
    }
    setTimeout(ask, wait);
  };
  ask();
})();

for (const button of document.querySelectorAll("[data-copy]")) {
  if (!navigator.clipboard) break;
  button.hidden = false;
  button.addEventListener("click", async () => {
    await navigator.clipboard.writeText(button.dataset.copy);
    button.textContent = "Copied";
  });
}

for (const button of document.querySelectorAll("[data-ask]")) {
  button.addEventListener("click", (event) => {
    if (!confirm(button.dataset.ask)) event.preventDefault();
  });
}
