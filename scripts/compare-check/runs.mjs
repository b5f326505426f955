/*
 * The runs of compare-check.mjs: every program of docs/findings, with its fault and without; the cases of the programs
 * of test/programs/check, as their tests call them; and the public reports that `userdma check` tells. Not here:
 * programs of two hosts (net_pair, remote_owner), those that need a library of their own (check_cases constructor) or a
 * device that leaves (initialised removed, outages again, waits cm-removed), and what only measures (gone churn,
 * wrapped).
 */
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'

const MLX5 = '--device mlx5_0@127.0.0.1,driver=mlx5'
const EFA = '--device efa_0@127.0.0.1,driver=efa'

/** Programs of one run, one after the other: a run costs seconds of its own. */
const BATCH = 16

/** Options of `userdma check` with which programs of docs/findings are refused as by an adapter. */
const LIKE = {
  'adapter-limit': '--like mlx5,rxe',
  'adapter-operation': '--like irdma',
  'adapter-memlock': '--like mlx5 --ignore-memlock',
  'fork-unsafe': '--like mlx5 --ignore-memlock',
}

/** Options and commands; of {a|b} each, and {*} is each name of a case in the program's source. */
const PROGRAMS = [
  ['', "batches '{send|rdma_write|atomic_fetch_add|bind_mw|set_sge|set_inline_data|complete|abort}'"],
  ['', "batches '{start|start,send|start,rdma_read|start,local_inv,id}{,abort|,send|,set_sge|,set_inline_data},abort'"],
  ['', "batches 'start,{send,set_sge,set_sge|send,set_ud_addr|thread:abort|abort|send,set_sge,destroy},abort'"],
  ['', "batches '{ud:start,send,set_sge|none:start,send|start,set_xrc_srqn|rts:start,send,set_long_list,complete}'"],
  ['', "batches '{start,send,set_sge,start|start,post|thread:start,start|start,send,exit|thread:start,exit}'"],
  ['', 'batches {correct|unfinished}'],
  ['', 'check_cases {leaves|exec|forged|asks|tries|batch|elements|callers|forks 20|threads}'],
  ['', 'correct {*-dynamic}'],
  ['', 'extended_polls {*}'],
  [
    '',
    'given_back {free|large|realloc|munmap|mremap|madvise|return|thread|sbrk|brk}/{send|posted|peer-read|peer-write}',
  ],
  [EFA, 'given_back_srd {free|realloc|munmap|return}/{send|receive|posted|peer-read}'],
  ['', 'gone {calls|concurrent|abort|wild}'],
  ['', 'initialised {recv|extended|read|write|beyond}'],
  ['', 'interrupted_posts {signal|jump|exit|fork}'],
  ['--torment 1 --torment-kinds late', 'late_cases {*-right}'],
  ['--torment 1 --torment-kinds late', 'late_cases {*-right} right'],
  [`${EFA} --torment 1 --torment-kinds late`, 'late_cases_srd read'],
  ['', 'lend_cases {levels|overlaps|windows|on-demand|everything|signals|children}'],
  [MLX5, 'lend_cases {indirect|dynamic|indirect-early|dynamic-early}'],
  ['', 'lent_cases {*-hold-right}'],
  ['', 'lifetimes {*}'],
  ['', 'lost_sends {rc|srq|xrc} {destroy|reset|err|close|exit|exec} {lost|unpolled|polled}'],
  ['', 'mistakes {*}'],
  [MLX5, 'mistakes moderated'],
  ['', 'null_arguments'],
  ['--fault drop=1,count=8', 'outages {recovers|dies}'],
  ['', 'outages forgets'],
  ['', 'own_allocator'],
  ['', "timeout 3 poll_orders '{|start,end,|[empty]start,|start,thread:}{next|end|read_opcode|read_byte_len}'"],
  ['', "timeout 3 poll_orders 'start,{start|poll|resize|exit|destroy_cq|destroy_qp,end|drain,read_opcode,end}'"],
  [MLX5, "timeout 3 poll_orders '{[single]two:take|[single]rush|[domain]two:take|two:take}'"],
  [MLX5, 'providers {batch|batch open|batch lacking|dc|dc cut|direct|direct write}'],
  [EFA, 'providers srd'],
  ['', 'queue_threads {sends|datagrams|xrc|writes|batches|mixed|extended|receives|ud-receives|srq}{|,wrong}'],
  ['--races', 'races'],
  ['', 'refusals'],
  ['', 'torment_cases {*-numbers-right-abreast-right}'],
  ['--who mr=2+0+64', 'touches'],
  ['', 'unmaps {*}'],
  ['', 'wrong_objects'],
]

/** Kinds of waits, all at the same time; their run ends by its time limit. */
const WAITS = [
  ['', 'waits credit credit-read credit-event no-doorbell thrown-away thrown-joined polled-twice flush-destroyed'],
  ['', 'waits flush-shared no-async poll-memory own-init peer-init own-error no-receive no-peer no-qp endless-rnr'],
  ['', 'waits unacknowledged no-arm async-event closed-all forked-away own-sqd held-itself held-by-other held-destroy'],
  ['', 'waits join-events mutex-event rwlock-event cond-missed sem-short barrier-short child-waits open-batch'],
  [
    '',
    'waits server-killed spin sleep stdio other-cq edge-epoll swap-order holder-ended lost-uc timeout-0 rnr-timer-0',
  ],
  ['', 'waits cm-not-accepted cm-not-read cm-no-port cm-no-port-poll cm-no-address cm-rejected cm-rejected-read'],
  ['', 'waits cm-no-route cm-no-connect cm-unread cm-unacked cm-disconnected'],
  ['', 'waits ring'],
  [MLX5, 'waits credit credit-event no-doorbell thrown-away own-init own-error no-receive no-qp closed-all'],
  [EFA, 'waits_srd credit credit-event thrown-away own-init own-error no-receive no-qp closed-all held-by-other'],
]
const WAITING = '--hang 1 --time-limit 10'

const wordsOf = text => text.split(' ').filter(Boolean)

/** The names of cases in a program's source: of its table, or those with which it compares its argument. */
const casesIn = (checkout, program) => {
  const source = readFileSync(join(checkout, 'test', 'programs', 'check', `${program}.c`), 'utf8')
  const names = source.matchAll(/\{"([a-z0-9_-]+)",|strcmp\([a-z]+(?:\[1\])?, "([a-z0-9_-]+)"\)/g)
  return [...new Set([...names].map(([, row, compared]) => row ?? compared))]
}

/** All commands that a row means. */
const expanded = (checkout, line) => {
  const [braces, text] = /\{([^{}]*)\}/.exec(line) ?? []
  if (braces === undefined) return [line]
  const program = line.split(' ', 1)[0]
  const choices = text.startsWith('*')
    ? casesIn(checkout, program).filter(name => !`${text.slice(1)}-`.includes(`-${name}-`))
    : text.split('|')
  return choices.flatMap(choice => expanded(checkout, line.replace(braces, choice)))
}

/** A fault rule acts once, so that each command has a run of its own. */
const batched = (name, options, commands) => {
  const size = options.includes('--fault ') ? 1 : BATCH
  return Array.from({ length: Math.ceil(commands.length / size) }, (_, i) => ({
    name: `${name}-${i + 1}`,
    options: wordsOf(options),
    commands: commands.slice(i * size, (i + 1) * size),
  }))
}

/** Programs that end by an alarm run alone, and so do those with options of their own. */
const ofFindings = checkout => {
  const folder = join(checkout, 'docs', 'findings')
  const names = readdirSync(folder).flatMap(name => (name.endsWith('.c') ? [name.slice(0, -2)] : []))
  const sourceOf = name => readFileSync(join(folder, `${name}.c`), 'utf8')
  const optionsOf = name => /^ \* Options: (.*)$/m.exec(sourceOf(name))?.[1] ?? LIKE[name] ?? ''
  const isAlone = name => optionsOf(name) !== '' || sourceOf(name).includes('alarm(')
  const faulty = name => `findings/${name}`
  return [
    ...batched('findings', '--races', names.filter(name => !isAlone(name)).map(faulty)),
    ...names.filter(isAlone).flatMap(name => batched(`findings-${name}`, `--races ${optionsOf(name)}`, [faulty(name)])),
    ...batched(
      'fixed',
      '--races',
      names.map(name => `findings/fixed/${name}`),
    ).map(run => ({ ...run, isSilent: true })),
  ]
}

const inPrograms = line => line.replace(/^(timeout \d+ )?/, '$1programs/')

const ofPrograms = checkout => {
  const rows = new Map()
  for (const [options, line] of PROGRAMS) {
    const [, program] = /^(?:timeout \d+ )?(\w+)/.exec(line)
    const key = ['check', program, ...wordsOf(options.replace(/@\S+/, '').replace(/--\S+/g, ''))].join('-')
    const { commands = [] } = rows.get(key) ?? {}
    rows.set(key, { options, commands: [...commands, ...expanded(checkout, line).map(inPrograms)] })
  }
  const programs = [...rows].flatMap(([name, { options, commands }]) => batched(name, options, commands))
  const waits = WAITS.map(([options, line], i) => ({
    name: `waits-${i + 1}`,
    options: wordsOf(`${options} ${WAITING}`),
    commands: [inPrograms(line)],
    isLimited: true,
  }))
  return [...programs, ...waits]
}

/** The rows of docs/reference/public-reports.md that run `userdma check`. */
const ofReports = checkout => {
  const page = readFileSync(join(checkout, 'docs', 'reference', 'public-reports.md'), 'utf8')
  const commands = page.matchAll(/`userdma check ([^`]*)-- (public_reports ([\w-]+))`/g)
  return [...commands].map(([, options, command, name]) => ({
    name: `report-${name}`,
    options: wordsOf(options).filter(word => word !== '--private' && word !== '--notes'),
    commands: [inPrograms(command)],
    isLimited: options.includes('--time-limit'),
  }))
}

/**
 * Each: a name, options of `userdma check`, and commands below build/. `isLimited`: one command, ended by --time-limit.
 * `isSilent`: nothing is found, so that a recording tells nothing.
 */
export const runsOf = checkout => [...ofFindings(checkout), ...ofPrograms(checkout), ...ofReports(checkout)]
