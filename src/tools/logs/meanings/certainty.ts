/*
 * How sure it is what a value means. A closed set, in descending order:
 *
 * - sure: the source of the driver or library says it, or its maker;
 * - likely: many public reports agree, of programs whose fault was found;
 * - guess: a few reports;
 * - none: no public meaning. That is said, and nothing concluded from the value.
 */
export type Certainty = 'sure' | 'likely' | 'guess' | 'none'

export interface Meaning {
  readonly text: string
  readonly certainty: Certainty
  /** Where the meaning is from. */
  readonly source: string
}
