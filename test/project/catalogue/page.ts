/*
 * The page docs/reference/programs.md.
 */
import { join } from 'node:path'
import { repoRoot } from '../../paths.ts'
import { isRunIn, type ProgramCase, reasonOf, type Userland, userlands } from './cases.ts'
import { catalogue } from './catalogue.ts'

export const PAGE = join(repoRoot, 'docs', 'reference', 'programs.md')

export type Verdict = 'works' | 'fails' | '–'

/** '–': the userland's program lacks these options. */
export const expectedVerdict = (programCase: ProgramCase, userland: Userland): Verdict => {
  if (!isRunIn(programCase, userland)) return '–'
  return reasonOf(programCase, userland) === undefined ? 'works' : 'fails'
}

const cell = (text: string): string => text.replaceAll('|', '\\|')
const code = (line: string): string => `\`${line.trim()}\``

/** A client that differs from its server only by the server's address is not shown. */
const commandOf = ({ server, client }: ProgramCase): string =>
  server === undefined || client === `${server} localhost` || client === `${server} SERVER`
    ? code(client)
    : `${code(server)}, ${code(client)}`

const rowOf = (programCase: ProgramCase, verdict: (userland: Userland) => Verdict): string => {
  const reasons = [...new Set(userlands.flatMap(userland => reasonOf(programCase, userland) ?? []))]
  return `| ${[commandOf(programCase), ...userlands.map(verdict), reasons.join('; ')].map(cell).join(' | ')} |`
}

const HEAD = `# Programs

Which unmodified programs run, with which options. The tests run each row with the programs of Debian 12 (rdma-core 44,
perftest 4.5, iproute2 6.1), installed on the test machine, and of Debian 13 (rdma-core 56, perftest 25.01, iproute2
6.15), unpacked in a folder, each time with a daemon that has three devices. They write this page
(\`npm run docs:programs\`).

*SERVER* and *CLIENT* are addresses of two devices, *SERVER6* one of IPv6; *PORT* is a free port. Where a row has one
command that ends with \`localhost\` or *SERVER*, the server runs the same command without this last word. \`–\`: the
program of that release has no such option.`

const COLUMNS = `| command | ${userlands.join(' | ')} | why not |\n|---|${userlands.map(() => '---|').join('')}---|`

/** `pyverbs`: the last section of the page. */
export const renderPage = (
  verdict: (programCase: ProgramCase, userland: Userland) => Verdict,
  pyverbs: string,
): string => {
  const sections = catalogue.map(({ name, cases }) => {
    const rows = cases.map(programCase => rowOf(programCase, userland => verdict(programCase, userland)))
    return `## ${name}\n\n${COLUMNS}\n${rows.join('\n')}`
  })
  return `${[HEAD, ...sections, pyverbs].join('\n\n')}\n`
}
