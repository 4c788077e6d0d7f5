// Makes a plan of more operations: a capsule's JSON from standard input, its plan with the first producer COPIES times (as a
// client each, with keys of its own) and each record TIMES times to standard output. Faults and settings stay.
//
//   node enlarge.mjs COPIES TIMES <capsule.json >plan.json
import { readFileSync } from "node:fs";

const [copies, times] = process.argv.slice(2).map(Number);
const { plan } = JSON.parse(readFileSync(0, "utf8"));
const first = plan.clients.find((client) => client.role.producer);
plan.clients = Array.from({ length: copies }, (_, id) => {
  let n = 0;
  const again = (record) => Array.from({ length: times }, () => {
    const key = record.key + "abcdefgh"[id];
    return { ...record, n: n++, key, value: JSON.stringify({ ...JSON.parse(record.value), k: key }) };
  });
  const batches = first.role.producer.batches.map((batch) => ({ ...batch, records: batch.records.flatMap(again) }));
  return { id, role: { producer: { ...first.role.producer, batches } } };
});
process.stdout.write(JSON.stringify(plan));
