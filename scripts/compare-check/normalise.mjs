/*
 * Findings as text that is equal in two runs of one build: without what names a run. Numbers keep which of them are
 * equal within a finding: the first is <1>, the next <2>, and so on.
 */

/** Members of a finding's JSON that are times, or numbers of processes and threads. */
const OF_A_RUN = new Set(['number', 'time', 'since', 'pid', 'thread', 'tid', 'owner'])

/** Paths below a checkout lose what is before them; the build has those of the checkout that compiled the programs. */
const PATHS = /"[^"]*?\/((?:docs\/findings|test\/programs|build|src|dist)\/[^"]*)"/g
const TIMES = /\b\d+(?:\.\d+)?(?:e-?\d+)? (?:ns|µs|ms|s|min)\b/g
/**
 * Numbers of queue pairs, keys and addresses: hexadecimal, of more digits than flags have. Processes; ports of rdma_cm
 * that the system has chosen; temporary files.
 */
const RANDOM =
  /0x[0-9a-f]{3,}|(?<=\b(?:process|processes|thread|threads|pid) )\d+|(?<=\bport )\d{5}\b|\/(?:tmp|dev\/shm)\/[^\s",)]+/g

const withoutRun = text => {
  const numbers = new Map()
  return text
    .replace(PATHS, '"$1"')
    .replace(TIMES, '<time>')
    .replace(RANDOM, number => {
      if (!numbers.has(number)) numbers.set(number, `<${numbers.size + 1}>`)
      return numbers.get(number)
    })
}

const textOf = record => withoutRun(JSON.stringify(record, (key, value) => (OF_A_RUN.has(key) ? undefined : value), 1))

/** The text of each program's findings, by its command; what the report says beside findings is that of ''. */
export const byProgram = report => {
  const texts = new Map()
  for (const line of report.split('\n').filter(Boolean)) {
    const record = JSON.parse(line)
    const command = record.program?.command ?? ''
    texts.set(command, `${texts.get(command) ?? ''}${textOf(record)}\n`)
  }
  return texts
}
