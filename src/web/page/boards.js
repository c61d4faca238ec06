// The leaderboards. Rows are kept by member, so that one that rises is seen to rise.
import { make, say } from "/app/chart.js";
import { count, score } from "/app/format.js";

const ROW_REM = 1.75;
const ROWS_MAX = 20;
const MOVED_MS = 3000;
const boards = new Map();

export function showBoards(all, into, now) {
  for (const [name, members] of Object.entries(all)) showBoard(name, members, into, now);
  for (const [name, board] of boards) {
    if (name in all) continue;
    board.card.remove();
    boards.delete(name);
  }
}

function showBoard(name, members, into, now) {
  let board = boards.get(name);
  if (!board) {
    const title = make("h3", "", make("bdi", "", name));
    board = { list: make("ol", "rows"), rows: new Map() };
    board.card = make("article", "card board", title, board.list);
    into.append(board.card);
    boards.set(name, board);
  }
  const shown = members.slice(0, ROWS_MAX);
  const most = Math.max(...shown.map(([, value]) => value), 0);
  const gone = new Set(board.rows.keys());
  shown.forEach(([member, value], place) => {
    gone.delete(member);
    const row = board.rows.get(member) ?? newRow(board, member, place);
    if (row.at !== place) [row.moved, row.since, row.at] = [row.at - place, now, place];
    row.item.style.transform = `translateY(${place * ROW_REM}rem)`;
    row.item.setAttribute("aria-posinset", place + 1);
    row.bar.style.inlineSize = `${most > 0 ? Math.max(0, (100 * value) / most) : 0}%`;
    const moved = now - row.since < MOVED_MS ? row.moved : 0;
    row.move.className = moved > 0 ? "move up" : "move down";
    say(row.move, moved === 0 ? "" : `${moved > 0 ? "▲" : "▼"}${Math.abs(moved)}`);
    say(row.place, count(place + 1));
    say(row.score, score(value));
  });
  for (const member of gone) {
    board.rows.get(member).item.remove();
    board.rows.delete(member);
  }
  board.list.style.blockSize = `${shown.length * ROW_REM}rem`;
}

function newRow(board, member, place) {
  const row = { bar: make("div", "bar"), place: make("span", "place"), score: make("span", "score"), move: make("span", "move") };
  Object.assign(row, { at: place, moved: 0, since: 0 });
  const name = make("bdi", "member", member);
  row.item = make("li", "row", row.bar, make("div", "text", row.place, name, row.move, row.score));
  board.list.append(row.item);
  board.rows.set(member, row);
  return row;
}
