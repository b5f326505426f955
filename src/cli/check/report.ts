/*
 * The output of `userdma check` for tools: findings as JSON objects (`--json`), and as a log of SARIF 2.1.0
 * (`--sarif`), which CI systems show.
 */
import { type Finding, findings, type Moment } from '../../spec/check/findings.ts'
import { type Omission, omissionText } from '../../spec/check/omissions.ts'
import { type Frame, frameText, type Symbols } from '../../trace/findings.ts'

const jsonMoment = ({ action, time, stack }: Moment, symbols: Symbols) => ({
  action,
  time,
  frames: symbols.framesOf(stack),
})

/** A finding as a JSON object. `count`: how often it was found. */
export const findingJson = (finding: Finding, symbols: Symbols, count?: number) => ({
  ...finding,
  ...(count !== undefined && { count }),
  moments: finding.moments.map(moment => jsonMoment(moment, symbols)),
  objects: finding.objects.map(({ name, history }) => ({
    name,
    history: history.map(moment => jsonMoment(moment, symbols)),
  })),
})

/** An omission as a JSON object; omissions are printed after the findings. */
export const omissionJson = (omission: Omission) => ({
  omission: omission.id,
  count: omission.count,
  text: omissionText(omission),
})

/** The first frame with a source file, if possible outside /usr. */
const sourceOf = (frames: readonly Frame[]): Frame | undefined => {
  const withFile = frames.filter(({ file }) => file !== undefined)
  return withFile.find(({ file }) => !file!.startsWith('/usr/')) ?? withFile[0]
}

/** A path as a URI reference. */
const uriOf = (file: string): string => file.split('/').map(encodeURIComponent).join('/')

/** SARIF counts lines from 1. A frame of Python has line 0 if its line is unknown. */
const location = ({ file = '', line = 0 }: Frame) => ({
  physicalLocation: { artifactLocation: { uri: uriOf(file) }, ...(line > 0 && { region: { startLine: line } }) },
})

/**
 * A SARIF 2.1.0 log of one run of the check: its findings with their counts, and its omissions. `version`: that of
 * userdma. Severities have the names of SARIF's levels.
 */
export const sarifLog = (
  counted: readonly (readonly [Finding, number])[],
  symbols: Symbols,
  version: string,
  omitted: readonly Omission[] = [],
) => {
  const ids = [...new Set(counted.map(([{ id }]) => id))]
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
        // An omission is no result: it says that the run was incomplete.
        ...(omitted.length > 0 && {
          invocations: [
            {
              executionSuccessful: true,
              toolExecutionNotifications: omitted.map(omission => ({
                descriptor: { id: omission.id },
                level: 'note',
                message: { text: omissionText(omission) },
              })),
            },
          ],
        }),
        results: counted.map(([finding, count]) => {
          const stacks = finding.moments
            .map(({ action, stack }) => ({ action, frames: symbols.framesOf(stack) }))
            .filter(({ frames }) => frames.length > 0)
          const source = sourceOf(stacks.flatMap(({ frames }) => frames))
          return {
            ruleId: finding.id,
            ruleIndex: ids.indexOf(finding.id),
            level: finding.severity,
            message: { text: [finding.text, ...finding.details].join('\n') },
            occurrenceCount: count,
            ...(source && { locations: [location(source)] }),
            ...(stacks.length > 0 && {
              stacks: stacks.map(({ action, frames }) => ({
                message: { text: action },
                frames: frames.map(frame => ({
                  location: {
                    ...(frame.file !== undefined && location(frame)),
                    message: { text: frameText(frame) },
                  },
                })),
              })),
            }),
          }
        }),
      },
    ],
  }
}
