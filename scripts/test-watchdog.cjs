/*
 * Loaded by Node's test runner, with ran-reporter.cjs: ends test files that do not go on. It looks at the processes of
 * each file, and acts if
 * - nothing moves: for a long time they wrote nothing and used less than a second of processor time, or
 * - no test of the file began or ended while they used a lot of processor time, or for a very long time.
 * The first time it ends the processes that the file has started, so that the test fails with what it knows of them,
 * and the other tests run; if that does not help, or at the second time, the file's own process. It prints which tests
 * were running, and what the processes were doing. What leaves the file's tree of processes is not seen.
 *
 * USERDMA_TEST_LIMITS has the three limits, in seconds: without movement, of processor time, and at all.
 */
const { subscribe } = require('node:diagnostics_channel')
const { readdirSync, readFileSync, writeSync } = require('node:fs')
const { relative } = require('node:path')
const { DefaultDeserializer, DefaultSerializer } = require('node:v8')

const LIMITS = process.env.USERDMA_TEST_LIMITS.split(' ').map(Number)
const [QUIET] = LIMITS

/** Seconds between two looks. Time is counted in looks: a machine that was suspended has had none. */
const INTERVAL = QUIET / 36

/** What a file has of the limits until it goes on, after the processes that it started were ended. */
const REST = 1 / 6

/** Less processor time than this is no movement, in seconds: timers of an idle daemon use some. */
const MOVEMENT = Math.min(1, QUIET / 180)

/** Linux gives processor time in these, to all programs. */
const TICKS_PER_SECOND = 100

/** Processes that are described. */
const SHOWN = 50

const serializer = new DefaultSerializer()
serializer.writeHeader()
/** Starts a record of the runner's child; then come 4 bytes with the length of what follows. */
const HEADER = serializer.releaseBuffer()

/** Longer records are no records: a test has printed the header. */
const MAX_RECORD = 2 ** 24

/** The value of a record; undefined for what a test has printed. */
const recordIn = bytes => {
  try {
    const reader = new DefaultDeserializer(bytes)
    reader.readHeader()
    return reader.readValue()
  } catch {
    return undefined
  }
}

/**
 * Calls `onEvent` with the events in a child's output, as the runner itself reads them; it keeps them back until
 * earlier files end.
 */
const eventReader = onEvent => {
  let rest = Buffer.alloc(0)
  const prefix = HEADER.length + 4
  return chunk => {
    rest = Buffer.concat([rest, chunk])
    for (;;) {
      const at = rest.indexOf(HEADER)
      // The last byte may be the first of a header; what tests print is skipped.
      rest = rest.subarray(at < 0 ? Math.max(0, rest.length - 1) : at)
      if (at < 0 || rest.length < prefix) return
      const length = rest.readUInt32BE(HEADER.length)
      if (length <= MAX_RECORD && rest.length < prefix + length) return
      const value = length <= MAX_RECORD ? recordIn(rest.subarray(prefix, prefix + length)) : undefined
      rest = rest.subarray(value === undefined ? 1 : prefix + length)
      if (value !== undefined) onEvent(value)
    }
  }
}

const readText = path => {
  try {
    return readFileSync(path, 'utf8')
  } catch {
    return ''
  }
}

/**
 * All processes of the machine: pid => children, and processor time of it and of children that have ended, in seconds.
 */
const allProcesses = () => {
  const found = new Map()
  const parents = new Map()
  for (const pid of readdirSync('/proc').filter(name => /^\d+$/.test(name))) {
    const stat = readText(`/proc/${pid}/stat`)
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ')
    const ticks = fields.slice(11, 15).reduce((sum, field) => sum + Number(field), 0)
    if (stat === '') continue
    found.set(Number(pid), { children: [], seconds: ticks / TICKS_PER_SECOND })
    parents.set(Number(pid), Number(fields[1]))
  }
  for (const [pid, parent] of parents) found.get(parent)?.children.push(pid)
  return found
}

/** `pid` and its descendants, parents first. */
const treeOf = (pid, processes) => {
  const tree = processes.has(pid) ? [pid] : []
  // It grows meanwhile.
  for (const one of tree) tree.push(...processes.get(one).children)
  return tree
}

/** A process's threads by state and the kernel's function in which they wait, its processor time and its command. */
const describe = (pid, { seconds }) => {
  const counts = new Map()
  let tasks = []
  try {
    tasks = readdirSync(`/proc/${pid}/task`)
  } catch {}
  for (const task of tasks) {
    const [, state = '?'] = /\) (\S)/.exec(readText(`/proc/${pid}/task/${task}/stat`)) ?? []
    const wait = readText(`/proc/${pid}/task/${task}/wchan`).replace(/^0$/, '')
    const what = wait === '' ? state : `${state} ${wait}`
    counts.set(what, (counts.get(what) ?? 0) + 1)
  }
  const threads = [...counts].map(([what, count]) => (count === 1 ? what : `${count} × ${what}`)).join(', ')
  const command = readText(`/proc/${pid}/cmdline`) || readText(`/proc/${pid}/comm`)
  return `  ${pid}: ${seconds.toFixed(1)} s, ${threads}: ${command
    .replace(/[^ -~]/g, ' ')
    .trim()
    .slice(0, 200)}`
}

const sourceOf = path =>
  relative(process.cwd(), path)
    .replace(/^dist\//, '')
    .replace(/\.js$/, '.ts')

const files = new Set()

/**
 * `looks`: since a test began or ended; `quietLooks`: since anything moved; `spent`: seconds of processor time,
 * likewise.
 */
const restart = file => Object.assign(file, { looks: 0, quietLooks: 0, quietSpent: 0, spent: 0, isEnding: false })

const reasonToEnd = file => {
  const [quiet, processor, longest] = LIMITS.map(limit => (file.isEnding ? Math.ceil(REST * limit) : limit))
  if (file.quietLooks * INTERVAL >= quiet) return `nothing has moved for ${quiet} s`
  if (file.spent >= processor) return `no test began or ended in ${processor} s of processor time`
  return file.looks * INTERVAL >= longest && `no test began or ended for ${longest} s`
}

const end = (file, reason, processes) => {
  const { child, tests } = file
  const tree = treeOf(child.pid, processes)
  const started = tree.slice(1)
  const isWhole = file.hasActed || started.length === 0
  const running = [...tests.values()]
  const where = running.at(-1)?.file ?? child.spawnargs.at(-1)
  const what = isWhole ? 'The file is ended' : 'The processes that it started are ended'
  const lines = [
    `${sourceOf(where)}: ${reason}. ${tree.length > 0 ? what : 'Its process has ended, but another has its output open'}.`,
    `  running, as the file last told: ${running.map(({ name }) => name).join(' > ') || 'no test'}`,
    ...tree.slice(0, SHOWN).map(pid => describe(pid, processes.get(pid))),
    ...(tree.length > SHOWN ? [`  and ${tree.length - SHOWN} more`] : []),
  ]
  writeSync(2, `userdma: ${lines.join('\n')}\n`)
  restart(file)
  Object.assign(file, { hasActed: true, isEnding: true })
  for (const pid of isWhole ? tree : started) {
    try {
      process.kill(pid, 'SIGKILL')
    } catch {
      // It has ended, or is another user's.
    }
  }
  // The runner would wait for it.
  if (tree.length === 0) child.stdout.destroy()
}

const look = () => {
  if (files.size === 0) return
  const processes = allProcesses()
  for (const file of files) {
    const total = treeOf(file.child.pid, processes).reduce((sum, pid) => sum + processes.get(pid).seconds, 0)
    // It falls if a process with children leaves the tree.
    const used = Math.max(0, total - file.total)
    file.total = total
    file.looks++
    file.quietLooks++
    file.spent += used
    file.quietSpent += used
    if (file.quietSpent >= MOVEMENT) Object.assign(file, { quietLooks: 0, quietSpent: 0 })
    const reason = reasonToEnd(file)
    if (reason) end(file, reason, processes)
  }
}

const watch = child => {
  const file = restart({ child, tests: new Map(), total: 0, hasActed: false })
  files.add(file)
  const read = eventReader(({ type, data }) => {
    const key = `${data.file}:${data.line}:${data.column}:${data.name}`
    if (type === 'test:dequeue') file.tests.set(key, data)
    else if (type === 'test:complete') file.tests.delete(key)
    else return
    restart(file)
  })
  child.stdout.on('data', chunk => {
    Object.assign(file, { quietLooks: 0, quietSpent: 0 })
    read(chunk)
  })
  child.stdout.once('close', () => files.delete(file))
}

// The channel has a process before it is started.
subscribe('child_process', ({ process: child }) => process.nextTick(() => child.stdout && watch(child)))

setInterval(look, INTERVAL * 1000).unref()
