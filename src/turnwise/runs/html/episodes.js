// The viewer of episodes. Texts of environments and models become text nodes, never markup.
(() => {
  const source = document.getElementById("data");
  if (!source) return;
  document.documentElement.classList.add("js");
  const { iterations } = JSON.parse(source.textContent);
  const at = { iteration: 0, episode: 0, turn: 0 };
  const place = (id) => document.getElementById(id);

  const make = (tag, kind, ...children) => {
    const node = document.createElement(tag);
    if (kind) node.className = kind;
    node.append(...children.filter((child) => child !== null && child !== undefined));
    return node;
  };
  const button = (kind, action, ...children) => {
    const node = make("button", kind, ...children);
    node.type = "button";
    node.addEventListener("click", action);
    return node;
  };
  const number = (value) => {
    if (value === null || value === undefined) return "–";
    const size = Math.abs(value);
    const text = size === 0 ? "0" : size < 1e-3 || size >= 1e6 ? value.toExponential(1) : String(Number(value.toPrecision(3)));
    return text.replaceAll("-", "−");
  };
  const signed = (value) => (value > 0 ? "+" : "") + number(value);
  const tone = (value) => (value > 0 ? "pos" : value < 0 ? "neg" : "zero");
  const diverging = (value, largest) => {
    const bar = make("span", "diverging");
    bar.style.display = "block";
    if (value && largest) {
      const part = make("i", value > 0 ? "p" : "m");
      part.style.width = `${Math.max(2, (50 * Math.abs(value)) / largest)}%`;
      bar.append(part);
    }
    return bar;
  };
  const percent = (p) => `${p >= 0.0995 ? (100 * p).toFixed(0) : (100 * p).toPrecision(2)} %`.replace("e-", "e−");

  const scale = (name) => iterations[at.iteration].scale[name];
  const chosen = () => iterations[at.iteration].episodes[at.episode];
  const verdict = (episode) => {
    if (episode.kind === "failed") return ["bad", "✕ failed"];
    if (episode.success !== null) return episode.success >= 1 ? ["good", "✓ success"] : episode.success > 0
      ? ["wait", `success ${number(episode.success)}`] : ["bad", "✕ no success"];
    return episode.kind === "truncated" ? ["wait", "cut off"] : ["", "ended"];
  };

  const drawIterations = () => {
    const buttons = iterations.map((entry, i) => {
      const last = i === iterations.length - 1;
      const label = `${entry.iteration}${i === 0 ? " · first" : last ? " · last" : ""}`;
      const node = button("", () => go({ iteration: i }), label);
      node.setAttribute("aria-pressed", String(i === at.iteration));
      return node;
    });
    place("iterations").replaceChildren(place("iterations").firstElementChild, ...buttons);
  };

  const drawPicks = () => {
    place("picks").replaceChildren(
      ...iterations[at.iteration].episodes.map((episode, i) => {
        const [kind, words] = verdict(episode);
        const task = make("span", "task", episode.goal || `${episode.env}, seed ${episode.seed}`);
        const sum = make(
          "span", "sum",
          make("span", kind, words),
          make("span", "", `return ${number(episode.return)}`),
          make("span", "", `${episode.length} turn${episode.length === 1 ? "" : "s"}`),
          episode.agent !== "agent" ? make("span", "", episode.agent) : null,
        );
        const node = button("pick", () => go({ episode: i }), task, sum);
        node.setAttribute("aria-pressed", String(i === at.episode));
        return node;
      }),
    );
  };

  const drawAbout = () => {
    const entry = iterations[at.iteration];
    const episode = chosen();
    const facts = [
      ["Episode", `${at.episode + 1} of ${entry.episodes.length} shown (${entry.of} recorded)`],
      ["Environment", `${episode.env}, seed ${episode.seed}`],
      ["Outcome", episode.outcome + (episode.detail ? `: ${episode.detail}` : "")],
      ["Return", number(episode.return)],
      ...Object.entries(episode.metrics).map(([name, value]) => [name, number(value)]),
    ];
    if (episode.kind === "failed") facts.push(["Broken by", "the environment, not the policy; the episode trains nothing"]);
    if (episode.agent !== "agent") facts.push(["Agent", `${episode.agent} in world ${episode.world}`]);
    if (episode.source !== "policy") facts.push(["Acted", episode.source]);
    place("about").replaceChildren(...facts.map(([name, value]) => make("span", "", `${name} `, make("b", "", value))));
  };

  const drawList = () => {
    const episode = chosen();
    const has = (name) => episode.turns.some((turn) => name in turn.streams);
    const [valued, credited] = [has("value"), has("advantage")];
    place("turns").classList.toggle("valued", valued);
    place("turns").classList.toggle("credited", credited);
    const head = make("div", "listhead", make("span", "", "turn"), make("span", "", "action"), make("span", "", "reward"),
      valued ? make("span", "value", "value") : null, credited ? make("span", "centre", "advantage") : null);
    const rows = make("ol");
    let before = 0;
    episode.turns.forEach((turn, i) => {
      if (turn.t !== before + 1) rows.append(make("li", "gap", `… ${turn.t - before - 1} turns left out …`));
      before = turn.t;
      const advantage = turn.streams.advantage;
      const row = button(
        "row", () => go({ turn: i }),
        make("span", "n", String(turn.t)), make("span", "act mono", turn.act || "(empty)"),
        make("span", `pay ${tone(turn.reward)}`, turn.reward === 0 ? "0" : signed(turn.reward)),
        valued ? make("span", "pay zero value", number(turn.streams.value)) : null,
        credited ? diverging(advantage ?? 0, scale("advantage")) : null,
      );
      if (advantage !== undefined) row.title = `advantage ${signed(advantage)}`;
      rows.append(make("li", "", row));
    });
    rows.append(make("li", "over", episode.outcome));
    place("turns").replaceChildren(head, rows);
  };

  const measure = (name, value, ...more) => make("div", "", make("dt", "", name), make("dd", "", value, ...more));

  const drawTurn = () => {
    const episode = chosen();
    const turn = episode.turns[at.turn];
    const list = place("turns");
    list.querySelectorAll(".row").forEach((row, i) => {
      if (i === at.turn) {
        row.setAttribute("aria-current", "step");
        const top = row.offsetTop - list.clientHeight / 2;
        list.scrollTop = Math.max(0, top);
      } else row.removeAttribute("aria-current");
    });
    if (!turn) {
      place("turn").replaceChildren(make("p", "note", "This episode has no turns."));
      return;
    }
    const previous = button("", () => step(-1), "← Previous");
    const next = button("", () => step(1), "Next →");
    previous.id = "previous";
    next.id = "next";
    previous.disabled = at.turn === 0;
    next.disabled = at.turn === episode.turns.length - 1;
    const measures = make("dl", "measures");
    const sources = Object.entries(turn.rewards);
    const split = sources.length > 1 ? make("small", "", " " + sources.map(([n, v]) => `${n} ${signed(v)}`).join(", "))
      : sources.length ? make("small", "", ` from ${sources[0][0]}`) : null;
    measures.append(measure("Reward", make("span", tone(turn.reward), turn.reward ? signed(turn.reward) : number(turn.reward)), split));
    for (const [name, value] of Object.entries(turn.streams)) {
      const title = name[0].toUpperCase() + name.slice(1);
      measures.append(
        name === "value" ? measure(title, number(value), make("small", "", " expected from here"))
          : measure(title, make("span", tone(value), signed(value)), diverging(value, scale(name))),
      );
    }
    if (turn.probability !== null) measures.append(measure("Probability of the action", percent(turn.probability)));
    measures.append(measure("Tokens", `${turn.tokens} sampled, ${turn.read} read`));
    measures.append(measure("Ended by", turn.stop === "length" ? "token budget" : turn.stop === "stop" ? "stop token" : turn.stop));
    measures.append(measure("Weights", `version ${turn.version}`));
    const last = at.turn === episode.turns.length - 1;
    const parts = [
      make("header", "", make("h3", "", `Turn ${turn.t} of ${episode.length}`), previous, next),
      make("h4", "", turn.fresh ? "Observation (the whole context)" : "Observation (added to the context)"),
      make("pre", "", turn.obs || "(nothing)"),
      make("h4", "", "Action"),
      make("pre", "act", turn.act || "(empty)"),
      measures,
    ];
    if (last && episode.last) parts.push(make("h4", "", "What came after"), make("pre", "", episode.last));
    place("turn").replaceChildren(...parts);
  };

  const go = (change) => {
    const held = document.activeElement;
    const focus = held && held.closest("#iterations, #picks, #turn") && [held.closest("div, article").id || "", held.id,
      [...held.parentElement.children].indexOf(held)];
    if ("iteration" in change) {
      Object.assign(at, { iteration: change.iteration, turn: 0 });
      at.episode = Math.min(at.episode, iterations[at.iteration].episodes.length - 1);
    } else if ("episode" in change) Object.assign(at, { episode: change.episode, turn: 0 });
    else at.turn = change.turn;
    if (!("turn" in change)) {
      drawIterations();
      drawPicks();
      drawAbout();
      drawList();
    }
    drawTurn();
    // What was drawn anew has lost the keyboard's place.
    if (focus) {
      const again = focus[1] ? place(focus[1]) : place(focus[0])?.children[focus[2]];
      again?.focus({ preventScroll: true });
    }
  };
  const step = (by) => {
    const turn = at.turn + by;
    if (turn >= 0 && turn < chosen().turns.length) go({ turn });
  };

  let visible = false;
  new IntersectionObserver((entries) => { visible = entries.at(-1).isIntersecting; }).observe(place("viewer"));
  document.addEventListener("keydown", (event) => {
    const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    const inside = place("viewer").contains(document.activeElement);
    const free = document.activeElement === document.body || document.activeElement === null;
    if (!by || event.altKey || event.ctrlKey || event.metaKey || !(inside || (free && visible))) return;
    event.preventDefault();
    if (!event.shiftKey) step(by);
    else {
      const episode = at.episode + by;
      if (episode >= 0 && episode < iterations[at.iteration].episodes.length) go({ episode });
    }
  });
  place("viewer").hidden = false;
  go({ iteration: 0 });
})();
