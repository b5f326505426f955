/*
 * Each C program below this folder refuses wrong arguments. Other tests run the programs on devices.
 */
import assert from 'node:assert/strict'
import { basename, join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { repoRoot } from '../paths.ts'
import { runProgram } from '../shim/program.ts'
import { compileC, currentBuild, filesBelow, hasHeader, requireTool, scratchFolder, skipTest } from '../tools.ts'

const folder = scratchFolder()
const sources = join(repoRoot, 'test/programs')
const isC = (path: string): boolean => path.endsWith('.c')

/** For each program, arguments that it must refuse, and its message. */
const refusals: Readonly<Record<string, readonly [args: readonly string[], message: RegExp]>> = {
  verbs_check: [['-s', '3'], /largest size 3: 8 to 67108864 are allowed/],
  verbs_errors: [['-q'], /usage: .*verbs_errors/],
  soak: [['-s', '3'], /largest block 3: 8 to 4194304 are allowed/],
  outcomes: [['-q'], /usage: .*outcomes/],
  tools: [[], /usage: tools DEVICE/],
  arguments: [['-q'], /usage: arguments DEVICE/],
  memory_windows: [['-q'], /usage: .*memory_windows/],
  persist: [['-s', '0'], /block of 0 bytes: 1 to 16777216 are allowed/],
  shared_queues: [['-q'], /usage: .*shared_queues/],
  queue_threads: [['-q'], /usage: queue_threads KIND/],
  interrupted_posts: [['-q'], /usage: interrupted_posts/],
  rails: [['-q'], /usage: .*rails/],
  one_send: [['-q'], /usage: .*one_send rc/],
  frozen: [['-q'], /usage: frozen DEVICE ROUNDS/],
  datagrams: [['-q'], /usage: .*datagrams/],
  contexts: [['-q'], /usage: .*contexts/],
  hostile: [['-q'], /usage: .*hostile/],
  passing: [['-q'], /usage: .*passing/],
  late_cases: [['-q'], /usage: late_cases read/],
  late_cases_srd: [['-q'], /usage: late_cases read/],
  lend_cases: [['-q'], /usage: lend_cases CASE/],
  lent_cases: [['-q'], /usage: lent_cases CASE/],
  imported: [['out'], /usage: .*imported/],
  object_costs: [['-q'], /usage: object_costs/],
  longest_calls: [['-q'], /usage: longest_calls/],
  every_call: [['-q'], /usage: .*every_call/],
  firmware: [[], /usage: firmware DEVICE/],
  firmware_attack: [[], /usage: firmware_attack DEVICE/],
  every_cm_call: [['-q'], /usage: .*every_cm_call/],
  every_region_call: [['-q'], /usage: .*every_region_call/],
  every_queue_call: [['-q'], /usage: .*every_queue_call/],
  every_function: [['-q'], /usage: .*every_function/],
  circumstances: [['-q'], /usage: circumstances CASE/],
  own_namespace: [['-q'], /usage: own_namespace/],
  lost_sends: [['-q'], /usage: .*lost_sends/],
  asleep: [['-q'], /usage: .*asleep/],
  doorbells: [['-q'], /usage: doorbells CASE/],
  adopted: [['-q'], /usage: adopted share/],
  own_mmap: [[], /usage: own_mmap DEVICE/],
  removal: [['-q'], /usage: .*removal/],
  armings: [['-q'], /usage: .*armings/],
  threads: [['-t', '0'], /0 threads: 1 to 64 are allowed/],
  loopback: [['-q'], /usage: .*loopback/],
  provider_faults: [['-q'], /usage: .*provider_faults/],
  fork_safe: [['-q'], /usage: .*fork_safe/],
  stalling: [['-q'], /usage: .*stalling/],
  holding: [['-q'], /usage: .*holding/],
  injected: [['-q'], /usage: injected CASE/],
  walked: [['-q'], /usage: walked/],
  pool: [['-q'], /usage: pool/],
  stale_gid: [['-q'], /usage: stale_gid/],
  late_reply: [['-q'], /usage: late_reply/],
  turns: [['-q'], /usage: turns/],
  lost_dreq: [['-q'], /usage: lost_dreq/],
  witness: [['-q'], /usage: witness/],
  datagram_service: [['-q'], /usage: datagram_service/],
  gone: [['-q'], /usage: gone calls\|/],
  lifetimes: [['-q'], /usage: lifetimes CASE/],
  own_allocator: [['-q'], /usage: own_allocator/],
  touches: [['-x'], /usage: \S*touches/],
  unmaps: [['-q'], /usage: unmaps CASE/],
  wrapped: [['0'], /usage: wrapped ROUNDS/],
  extended_polls: [['-q'], /usage: extended_polls CASE/],
  check_cases: [['-q'], /usage: .*check_cases/],
  correct: [['-q'], /usage: correct CASE/],
  limits: [['-q'], /usage: limits DEVICE/],
  refusals: [['-q'], /usage: refusals/],
  torment_cases: [['-q'], /usage: torment_cases/],
  mistakes: [['-q'], /usage: mistakes/],
  budgets: [['-q'], /usage: budgets DEVICE/],
  topology_readers: [['-q'], /usage: topology_readers/],
  lives: [['-q'], /usage: lives CASE/],
  order_cases: [['-q'], /usage: order_cases CASE/],
  order_cases_srd: [['-q'], /usage: order_cases CASE/],
  posts: [['-q'], /usage: posts/],
  given_up: [['-q'], /usage: given_up CASE/],
  one_sided: [['-q'], /usage: .*one_sided CASE/],
  sanitized: [['-q'], /usage: .*sanitized CASE/],
  remote_owner: [['-q'], /usage: remote_owner/],
  providers: [['-q'], /usage: providers/],
  races: [['-q'], /usage: .*races/],
  identity: [['-q'], /usage: identity client/],
  calls: [['0'], /usage: calls COUNT/],
  observed: [['-q'], /usage: observed/],
  netlink: [['-q'], /usage: netlink/],
  batches: [['-q'], /usage: batches/],
  call_habits: [['-q'], /usage: call_habits/],
  null_arguments: [['-q'], /usage: .*null_arguments/],
  wrong_objects: [['-q'], /usage: .*wrong_objects/],
  outages: [['-q'], /usage: outages/],
  poll_orders: [[], /usage: poll_orders/],
  given_back: [['-q'], /usage: given_back HOW/],
  given_back_srd: [['-q'], /usage: given_back HOW/],
  gid_table: [[], /usage: gid_table DEVICE/],
  net_pair: [['-q'], /usage: net_pair KIND/],
  waits: [['-q'], /waits: -q is no kind of wait/],
  waits_srd: [['-q'], /waits: -q is no kind of wait/],
  ucma: [['-q'], /usage: .*ucma/],
  umad: [['-q'], /usage: .*umad/],
  umad_talk: [['-q'], /usage: umad_talk/],
  closed_channel: [['-q'], /usage: closed_channel/],
  initialised: [['-q'], /usage: .*initialised/],
  slow_memory: [['-q'], /usage: .*slow_memory/],
  stale_region: [['mun'], /usage: .*stale_region/],
  echo: [['-q'], /usage: echo server ADDRESS PORT/],
  many_objects: [['mr', '1'], /usage: many_objects/],
  unacknowledged: [['srq'], /usage: unacknowledged/],
  resized: [['mlx5_0'], /usage: resized/],
  dynamic: [['mlx5_0'], /usage: dynamic/],
  firmware_queues: [[], /usage: firmware_queues DEVICE/],
  adapter: [['-q'], /usage: .*adapter/],
  raw_packets: [[], /usage: raw_packets DEVICE/],
  on_demand: [[], /usage: on_demand DEVICE/],
  dmabuf: [[], /usage: dmabuf DEVICE/],
  allocator: [[], /usage: allocator DEVICE/],
  imports: [[], /usage: imports DEVICE/],
  answers: [['-q'], /usage: .*answers/],
  hours: [['-q'], /usage: .*hours/],
  spins: [['-q'], /usage: .*spins/],
  public_reports: [['-q'], /usage: .*public_reports/],
  confined: [['-q'], /usage: .*confined/],
  timerfds: [['-q'], /usage: .*timerfds/],
  details: [['-q'], /usage: .*details CASE/],
  object_dialect: [['/no/such/node'], /\/no\/such\/node: No such file or directory/],
}

const canCompile = (t: TestContext): boolean => {
  if (!requireTool('cc', t, 'gcc libc6-dev')) return false
  return (
    hasHeader('infiniband/verbs.h') ||
    skipTest(t, '<infiniband/verbs.h> is not installed here (Debian: apt-get install libibverbs-dev)')
  )
}

test('no two programs have one name: they are compiled into one folder', () => {
  const names = filesBelow(sources)
    .filter(isC)
    .map(path => basename(path))
  assert.deepEqual(
    names.filter((name, i) => names.indexOf(name) !== i),
    [],
  )
})

for (const source of filesBelow(sources).filter(isC)) {
  const name = basename(source, '.c')
  test(`${name} refuses wrong arguments`, async t => {
    if (!canCompile(t)) return
    const program =
      currentBuild(`programs/${name}`, 'test/programs') ??
      compileC(
        join(folder, name),
        [source],
        [`-I${join(repoRoot, 'shim', 'include')}`, '-lrdmacm', '-libverbs', '-lmlx5', '-lefa', '-lpthread', '-lrt'],
      )
    assert.ok(refusals[name], `${name} has no wrong arguments in this test`)
    const [args, message] = refusals[name]
    const { status, stdout, stderr } = await runProgram(program, args, { PATH: process.env.PATH })
    assert.equal(status, 1)
    assert.match(stdout + stderr, message)
  })
}
