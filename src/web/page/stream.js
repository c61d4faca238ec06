// The server's events. They come by fetch: an EventSource cannot send a token.

const SILENCE_MS = 5000;
const AGAIN_MS = 1000;

/// Calls `on.event(name, data)` for each event, for ever; `on.gone(status)` while there are none (0: nobody answers), and
/// `await on.token(refused)` for the token when one is asked for.
export async function follow(on) {
  let token = null;
  for (;;) {
    let status = 0;
    try {
      status = await once(on, token);
    } catch (error) {
      console.debug(error);
    }
    if (status === 401) {
      token = await on.token(token !== null);
      continue;
    }
    on.gone(status);
    await new Promise((again) => setTimeout(again, AGAIN_MS));
  }
}

async function once(on, token) {
  const silence = new AbortController();
  let timer = setTimeout(() => silence.abort(), SILENCE_MS);
  const headers = token ? { Authorization: `Bearer ${token}` } : {};
  try {
    const response = await fetch("/api/v1/events", { headers, cache: "no-store", signal: silence.signal });
    if (!response.ok) return response.status;
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    let rest = "";
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return 0;
      clearTimeout(timer);
      timer = setTimeout(() => silence.abort(), SILENCE_MS);
      const events = (rest + value).split("\n\n");
      rest = events.pop();
      events.forEach((event) => dispatch(event, on));
    }
  } finally {
    clearTimeout(timer);
  }
}

function dispatch(event, on) {
  const lines = event.split("\n");
  const field = (name) => lines.find((line) => line.startsWith(`${name}: `))?.slice(name.length + 2);
  on.event(field("event"), JSON.parse(field("data")));
}
