/*
 * Formatting of the demo: headings, short explanations, output of programs, and lines truncated to the output
 * width.
 */

/** Limits of the output width, columns. */
const MAX_WIDTH = 120
const MIN_WIDTH = 60

/** Indentation of all text except headings and explanations. */
const INDENT = '    '

/** Maximum width of an explanation, columns. */
const MAX_PARAGRAPH = 90

/** Output width: the terminal's, or 100 without a terminal. */
const width = (): number => Math.max(MIN_WIDTH, Math.min(MAX_WIDTH, process.stdout.columns ?? 100))

const hasColours = (): boolean => process.stdout.isTTY && !process.env.NO_COLOR
/** Text with an SGR code of a terminal: 1 is bold, 2 faint. */
const styled = (code: number, text: string): string => (hasColours() ? `\x1b[${code}m${text}\x1b[0m` : text)

const print = (text = ''): void => {
  process.stdout.write(`${text}\n`)
}

/** Text as lines of at most `columns` characters; a longer word is a line of its own. */
const wrapped = (text: string, columns: number): string[] => {
  const lines: string[] = []
  let current = ''
  for (const word of text.split(/\s+/)) {
    if (current !== '' && current.length + 1 + word.length > columns) {
      lines.push(current)
      current = ''
    }
    current += current === '' ? word : ` ${word}`
  }
  return [...lines, current]
}

export const heading = (text: string): void => print(`\n${styled(1, text)}\n`)

/** An explanation, wrapped. */
export const paragraph = (explanation: string): void => {
  for (const text of wrapped(explanation, Math.min(width(), MAX_PARAGRAPH))) print(text)
}

export const blank = (): void => print()

/** A command line, as one would type it. */
export const prompt = (command: string): void => print(styled(2, `${INDENT}$ `) + command)

/** A program's output, without leading and trailing blank lines. */
export const output = (text: string): void => {
  for (const printed of text.replace(/^\s*\n|\s+$/g, '').split('\n')) print(`${INDENT}${printed}`)
}

/** One line, truncated to the output width. */
export const line = (text: string): void => {
  const columns = width() - INDENT.length
  print(`${INDENT}${text.length > columns ? `${text.slice(0, columns - 1)}…` : text}`)
}
