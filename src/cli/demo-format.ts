/*
 * Formatting of the demo: headings, short explanations, output of programs, and lines truncated to the terminal's
 * width.
 */
const WIDEST = 120
const NARROWEST = 60

/** Output width: the terminal's, or 100 without a terminal. */
const width = (): number => Math.max(NARROWEST, Math.min(WIDEST, process.stdout.columns ?? 100))

const colours = (): boolean => process.stdout.isTTY && !process.env.NO_COLOR
const paint = (code: number, text: string): string => (colours() ? `\x1b[${code}m${text}\x1b[0m` : text)

const print = (text = ''): void => {
  process.stdout.write(`${text}\n`)
}

const filled = (text: string, columns: number): string[] => {
  const lines: string[] = []
  let line = ''
  for (const word of text.split(/\s+/)) {
    if (line !== '' && line.length + 1 + word.length > columns) {
      lines.push(line)
      line = ''
    }
    line += line === '' ? word : ` ${word}`
  }
  return [...lines, line]
}

export const heading = (text: string): void => print(`\n${paint(1, text)}\n`)

/** An explanation, wrapped to the output width. */
export const paragraph = (text: string): void => {
  for (const line of filled(text, Math.min(width(), 90))) print(line)
}

export const blank = (): void => print()

/** A command line, as one would type it. */
export const prompt = (command: string): void => print(paint(2, `    $ `) + command)

/** A program's output, without leading and trailing blank lines. */
export const output = (text: string): void => {
  for (const line of text.replace(/^\s*\n|\s+$/g, '').split('\n')) print(`    ${line}`)
}

/** One line, truncated to the output width. */
export const cut = (text: string): void => {
  const columns = width() - 4
  print(`    ${text.length > columns ? `${text.slice(0, columns - 1)}…` : text}`)
}
