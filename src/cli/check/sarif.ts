/*
 * Logs of SARIF 2.1.0, which CI systems show: of `userdma check` and of `userdma walk`.
 */
import { type Frame, frameText } from '../../spec/check/frames.ts'

/** Severities have the names of SARIF's levels. */
interface SarifRule {
  readonly id: string
  readonly title: string
  readonly why: string
  readonly advice: string | undefined
  readonly level: string
}

export interface SarifResult {
  /** That of a rule. */
  readonly id: string
  readonly level: string
  readonly text: string
  readonly count: number
  readonly stacks: readonly { readonly action: string; readonly frames: readonly Frame[] }[]
  /** For tools that know them. */
  readonly properties?: object
  /** What happened before, as a code flow. */
  readonly flow?: readonly FlowStep[]
}

interface FlowStep {
  readonly text: string
  readonly frames: readonly Frame[]
  readonly isEssential: boolean
}

/** The run was incomplete. */
interface SarifNote {
  readonly id: string
  readonly text: string
}

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

const codeFlow = (steps: readonly FlowStep[]) => ({
  threadFlows: [
    {
      locations: steps.map(({ text, frames, isEssential }) => {
        const source = sourceOf(frames)
        return {
          location: { ...(source && location(source)), message: { text } },
          importance: isEssential ? 'essential' : 'important',
        }
      }),
    },
  ],
})

/** A log of one run. `tool`, `version`: of the command. */
export const sarifDocument = (
  tool: string,
  version: string,
  rules: readonly SarifRule[],
  results: readonly SarifResult[],
  notes: readonly SarifNote[] = [],
) => ({
  $schema: 'https://json.schemastore.org/sarif-2.1.0.json',
  version: '2.1.0',
  runs: [
    {
      tool: {
        driver: {
          name: tool,
          version,
          rules: rules.map(({ id, title, why, advice, level }) => ({
            id,
            shortDescription: { text: title },
            fullDescription: { text: why },
            ...(advice !== undefined && { help: { text: advice } }),
            defaultConfiguration: { level },
          })),
        },
      },
      ...(notes.length > 0 && {
        invocations: [
          {
            executionSuccessful: true,
            toolExecutionNotifications: notes.map(({ id, text }) => ({
              descriptor: { id },
              level: 'note',
              message: { text },
            })),
          },
        ],
      }),
      results: results.map(({ id, level, text, count, stacks: all, properties, flow = [] }) => {
        const stacks = all.filter(({ frames }) => frames.length > 0)
        const source = sourceOf(stacks.flatMap(({ frames }) => frames))
        return {
          ruleId: id,
          ruleIndex: rules.findIndex(rule => rule.id === id),
          level,
          message: { text },
          occurrenceCount: count,
          ...(properties && { properties }),
          ...(source && { locations: [location(source)] }),
          ...(flow.length > 0 && { codeFlows: [codeFlow(flow)] }),
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
})
