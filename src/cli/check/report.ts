/*
 * Findings as text for people, as JSON, and as SARIF 2.1.0 for CI.
 */
import { type Finding, findings, type Moment } from '../../spec/findings.ts'
import { printable } from '../../trace/calls.ts'
import type { Frame, Symbols } from './symbols.ts'

/** Frames of a stack that are printed. */
const MAX_FRAMES = 12
/** Frames of each moment in an object's history. */
const MAX_CALLERS = 4

const frameText = ({ function: name, file, line, object }: Frame): string => {
  const where = file !== undefined ? `${file}:${line}` : object !== undefined ? `(${object})` : ''
  return [name || '??', where].filter(Boolean).join(file === undefined ? ' ' : ' at ')
}

/** The same, shorter. */
const callerText = ({ function: name, file, line }: Frame): string =>
  `${name || '??'}${file === undefined ? '' : ` (${file}:${line})`}`

const stackLines = (frames: readonly Frame[], indent: string): string[] => [
  ...frames.slice(0, MAX_FRAMES).map((frame, i) => `${indent}#${i} ${frameText(frame)}`),
  ...(frames.length > MAX_FRAMES ? [`${indent}… ${frames.length - MAX_FRAMES} more`] : []),
]

const ago = (from: number, to: number): string => {
  const ms = (to - from) / 1000
  return ms >= 1000 ? `${(ms / 1000).toFixed(1)} s before` : `${ms.toFixed(1)} ms before`
}

/** A finding as lines. */
export const findingText = (finding: Finding, symbols: Symbols): string => {
  const { id, severity, text, details, program, device, time, moments, objects } = finding
  const who = program === undefined ? device : `process ${program.pid} (${program.command}), ${device}`
  const historyLine = ({ what, time: when, stack }: Moment): string => {
    const callers = symbols.framesOf(stack).slice(0, MAX_CALLERS).map(callerText).join(' < ')
    return `    ${what}${when < time ? ` ${ago(when, time)}` : ''}${callers && `: ${callers}`}`
  }
  const lines = [
    `userdma check: ${severity} ${id}: ${who}: ${text}`,
    ...details.map(line => `    ${line}`),
    ...moments
      .filter(({ stack }) => stack.length > 0)
      .flatMap(({ what, stack }) => [`  ${what}`, ...stackLines(symbols.framesOf(stack), '    ')]),
    ...objects.flatMap(({ name, history }) => [`  ${name}`, ...history.map(historyLine)]),
    `  advice: ${findings[id].advice}`,
  ]
  return `${lines.map(printable).join('\n')}\n`
}

const jsonMoment = ({ what, time, stack }: Moment, symbols: Symbols) => ({
  what,
  time,
  frames: symbols.framesOf(stack),
})

/** A finding as a JSON object; `count` if all of them are known. */
export const findingJson = (finding: Finding, symbols: Symbols, count?: number) => ({
  ...finding,
  ...(count !== undefined && { count }),
  moments: finding.moments.map(moment => jsonMoment(moment, symbols)),
  objects: finding.objects.map(({ name, history }) => ({
    name,
    history: history.map(moment => jsonMoment(moment, symbols)),
  })),
})

/** The innermost frame with a source line, outside the system's headers if there is one. */
const sourceOf = (frames: readonly Frame[]): Frame | undefined => {
  const known = frames.filter(({ file }) => file !== undefined)
  return known.find(({ file }) => !file!.startsWith('/usr/')) ?? known[0]
}

/** A path as a URI reference. */
const uriOf = (file: string): string => file.split('/').map(encodeURIComponent).join('/')

const location = ({ file = '', line }: Frame) => ({
  physicalLocation: { artifactLocation: { uri: uriOf(file) }, region: { startLine: line } },
})

/** A log of one run (SARIF 2.1.0), whose levels are our severities. */
export const sarifLog = (all: readonly (readonly [Finding, number])[], symbols: Symbols, version: string) => {
  const ids = [...new Set(all.map(([{ id }]) => id))]
  return {
    $schema: 'https://json.schemastore.org/sarif-2.1.0.json',
    version: '2.1.0',
    runs: [
      {
        tool: {
          driver: {
            name: 'userdma check',
            version,
            rules: ids.map(id => ({
              id,
              shortDescription: { text: findings[id].title },
              fullDescription: { text: findings[id].why },
              help: { text: findings[id].advice },
              defaultConfiguration: { level: findings[id].severity },
            })),
          },
        },
        results: all.map(([finding, count]) => {
          const frames = finding.moments.flatMap(({ stack }) => symbols.framesOf(stack))
          const source = sourceOf(frames)
          return {
            ruleId: finding.id,
            ruleIndex: ids.indexOf(finding.id),
            level: finding.severity,
            message: { text: [finding.text, ...finding.details].join('\n') },
            occurrenceCount: count,
            ...(source && { locations: [location(source)] }),
            ...(frames.length > 0 && {
              stacks: [
                {
                  frames: frames.map(frame => ({
                    location: {
                      ...(frame.file !== undefined && location(frame)),
                      message: { text: frameText(frame) },
                    },
                  })),
                },
              ],
            }),
          }
        }),
      },
    ],
  }
}
