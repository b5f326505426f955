/*
 * Severities in color, for people: on a terminal, unless NO_COLOR is set (https://no-color.org) or TERM is dumb.
 * `--color` decides otherwise. What programs read (JSON, SARIF) has none.
 */
import type { Severity } from '../spec/check/severity.ts'

/** The values of `--color` with their meanings; the first one is the default. */
export const colorChoices = {
  auto: 'on a terminal without NO_COLOR',
  always: 'also in files and pipes',
  never: 'nowhere',
} as const

export interface ColorOptions {
  readonly color?: keyof typeof colorChoices
}

/** Bold, as those of gcc and clang: red, magenta and cyan can be read on dark and on light ground. */
const codes: Readonly<Record<Severity, string>> = { error: '1;31', warning: '1;35', note: '1;36' }

/** A text in the color of a severity. */
export type Paint = (severity: Severity, text: string) => string

const painted: Paint = (severity, text) => `\x1b[${codes[severity]}m${text}\x1b[0m`
export const unpainted: Paint = (_severity, text) => text

/** `stream`: what the text is written to; undefined: a file. */
export const paintFor = (
  { color = 'auto' }: ColorOptions,
  stream: { readonly isTTY?: boolean } | undefined,
  { NO_COLOR, TERM }: NodeJS.ProcessEnv = process.env,
): Paint => {
  const isForPeople = stream?.isTTY === true && !NO_COLOR && TERM !== 'dumb'
  return color === 'always' || (color === 'auto' && isForPeople) ? painted : unpainted
}

/** The text with the first `word` in it in color. */
export const paintedWord = (text: string, word: string, severity: Severity, paint: Paint): string => {
  const at = text.indexOf(word)
  return at < 0 ? text : text.slice(0, at) + paint(severity, word) + text.slice(at + word.length)
}
