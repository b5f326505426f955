/*
 * Metrics as text: Prometheus' format 0.0.4, or OpenMetrics 1.0.0, where the family of a counter has no `_total` and
 * the text ends with `# EOF`.
 */

export interface Sample {
  readonly labels: Readonly<Record<string, string>>
  readonly value: number
}

/** A metric with its samples. A counter's name ends with `_total`. */
export interface Family {
  readonly name: string
  readonly type: 'counter' | 'gauge'
  readonly help: string
  readonly samples: readonly Sample[]
}

export type Format = 'prometheus' | 'openmetrics'

export const contentTypes: Readonly<Record<Format, string>> = {
  prometheus: 'text/plain; version=0.0.4; charset=utf-8',
  openmetrics: 'application/openmetrics-text; version=1.0.0; charset=utf-8',
}

const escaped = (text: string): string => text.replace(/[\\"\n]/g, unit => (unit === '\n' ? '\\n' : `\\${unit}`))

const sampleLine = (name: string, { labels, value }: Sample): string => {
  const pairs = Object.entries(labels).map(([label, text]) => `${label}="${escaped(text)}"`)
  return `${name}${pairs.length === 0 ? '' : `{${pairs.join(',')}}`} ${value}\n`
}

/** Families without samples are left out. */
export const exposition = (families: readonly Family[], format: Format): string => {
  const text = families
    .filter(({ samples }) => samples.length > 0)
    .map(({ name, type, help, samples }) => {
      const family = format === 'openmetrics' ? name.replace(/_total$/, '') : name
      const lines = samples.map(sample => sampleLine(name, sample))
      return `# HELP ${family} ${escaped(help)}\n# TYPE ${family} ${type}\n${lines.join('')}`
    })
  return `${text.join('')}${format === 'openmetrics' ? '# EOF\n' : ''}`
}
