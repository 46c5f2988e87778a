// undici and better-sqlite3: patches in a table, answers written down in groups, a commit for each
// group. What a careful program in Node would do; it takes and prints what programs/job.py says.

import { readFileSync } from "node:fs";
import { join } from "node:path";
import Database from "better-sqlite3";
import { Pool } from "undici";

const [url, patches, folder, inFlight] = process.argv.slice(2);
const GROUP_MS = 10;
const PAGE = 1000;

const db = new Database(join(folder, "peer.db"));
db.pragma("journal_mode = WAL");
db.pragma("synchronous = FULL");
db.exec(`
  CREATE TABLE patches (id INTEGER PRIMARY KEY, run TEXT, body TEXT, state TEXT DEFAULT 'pending');
  CREATE INDEX waiting ON patches (id) WHERE state = 'pending';
  CREATE TABLE snapshots (run TEXT PRIMARY KEY, patch INTEGER, body TEXT);
`);
const queue = db.prepare("INSERT INTO patches (run, body) VALUES (?, ?)");
const count = readPatches();

const next = db.prepare(
  "SELECT id, run, body FROM patches WHERE state = 'pending' AND id > ? ORDER BY id LIMIT ?",
);
const settle = db.prepare("UPDATE patches SET state = 'delivered' WHERE id = ?");
const keep = db.prepare(`
  INSERT INTO snapshots (run, patch, body) VALUES (?, ?, ?)
  ON CONFLICT (run) DO UPDATE SET patch = excluded.patch, body = excluded.body
   WHERE excluded.patch > patch
`);
const write = db.transaction((answers) => {
  for (const { id, run, body } of answers) {
    settle.run(id);
    keep.run(run, id, body);
  }
});

const base = new URL(url);
const client = new Pool(base.origin, { connections: Number(inFlight) });
const began = performance.now();
let page = [];
let last = 0;
let answers = [];
let written = null;

await Promise.all(Array.from({ length: Number(inFlight) }, worker));
await written;
const recorded = db.prepare("SELECT count(*) AS n FROM patches WHERE state = 'delivered'").get().n;
console.log(JSON.stringify({ seconds: (performance.now() - began) / 1000, recorded }));
await client.close();
if (recorded !== count) process.exitCode = 1;

function readPatches() {
  const lines = readFileSync(patches, "utf8").trimEnd().split("\n");
  db.transaction(() => {
    for (const line of lines) {
      const [run, name, metadata] = JSON.parse(line);
      queue.run(run, `{"name":${JSON.stringify(name)},"metadata":${metadata}}`);
    }
  })();
  return lines.length;
}

function take() {
  if (page.length === 0) {
    page = next.all(last, PAGE).reverse();
    if (page.length > 0) last = page[0].id;
  }
  return page.pop();
}

async function worker() {
  for (let patch = take(); patch !== undefined; patch = take()) {
    const answer = await client.request({
      method: "POST",
      path: `${base.pathname}/workflow_runs/${patch.run}`,
      headers: { "content-type": "application/json", authorization: "Bearer benchmark" },
      body: patch.body,
    });
    const body = await answer.body.text();
    if (JSON.parse(body).workflowRun.id !== patch.run) throw new Error(`not ${patch.run}`);
    answers.push({ id: patch.id, run: patch.run, body });
    written ??= new Promise((resolve) => setTimeout(() => resolve(flush()), GROUP_MS));
  }
}

function flush() {
  const group = answers;
  answers = [];
  written = null;
  write(group);
}
