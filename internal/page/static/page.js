// Loads the page again every few seconds while somebody looks at it, and puts what has changed
// in its place: focus, scrolling, a selection and what was typed stay as they are.
'use strict';
(() => {
  const period = 10000;
  let paused = false, asking = false, timer = 0;
  const parts = [...document.querySelectorAll('.live[id]')].map(e => e.id);
  if (!parts.length) return;

  const button = document.createElement('button');
  button.type = 'button';
  button.className = 'plain';
  button.id = 'pause';
  const state = document.createElement('span');
  state.setAttribute('role', 'status');
  const link = document.getElementById('refresh');
  link.after(button);
  link.parentElement.append(state);
  const say = () => { button.textContent = paused ? 'Resume' : 'Pause'; };
  say();

  const selecting = () => { const s = getSelection(); return s && !s.isCollapsed; };

  // What has the focus is found again by where it leads: its place among its like.
  const placeOf = (root, e) => {
    if (!e || !root.contains(e) || !e.hasAttribute('href')) return null;
    const like = [...root.querySelectorAll('a[href]')].filter(a => a.getAttribute('href') === e.getAttribute('href'));
    return { href: e.getAttribute('href'), n: like.indexOf(e), all: [...root.querySelectorAll('a[href]')].indexOf(e) };
  };
  const find = (root, place) => {
    const links = [...root.querySelectorAll('a[href]')];
    return links.filter(a => a.getAttribute('href') === place.href)[place.n] || links[Math.min(place.all, links.length - 1)];
  };

  const put = (fresh) => {
    for (const id of parts) {
      const old = document.getElementById(id), now = fresh.getElementById(id);
      if (!old || !now || old.innerHTML === now.innerHTML) continue;
      const place = placeOf(old, document.activeElement);
      old.replaceChildren(...now.childNodes);
      const e = place && find(old, place);
      if (e) e.focus({ preventScroll: true });
    }
    document.title = fresh.title;
  };

  const refresh = async () => {
    if (asking || selecting()) return;
    asking = true;
    try {
      const answer = await fetch(location.href, { headers: { 'Tiwkeyd-Refresh': '1' }, signal: AbortSignal.timeout(8000) });
      const text = await answer.text();
      if (!answer.ok && answer.status !== 404) throw new Error(answer.status);
      if (!paused && !document.hidden && !selecting()) put(new DOMParser().parseFromString(text, 'text/html'));
      if (state.textContent) state.textContent = '';
      state.className = '';
    } catch {
      state.className = 'bad';
      if (!state.textContent) state.textContent = 'The daemon does not answer; this is how it was.';
    } finally {
      asking = false;
    }
  };

  const run = () => {
    clearInterval(timer);
    if (!paused && !document.hidden) timer = setInterval(refresh, period);
  };
  button.addEventListener('click', () => { paused = !paused; say(); run(); if (!paused) refresh(); });
  document.addEventListener('visibilitychange', () => { run(); if (!document.hidden && !paused) refresh(); });
  run();
})();
