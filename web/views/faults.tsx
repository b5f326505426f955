/*
 * The fault rules of the daemon: as text, and the values of one rule on sliders. Changes take effect at once.
 */
import { useEffect, useRef, useState } from 'preact/hooks'
import { FaultSettings } from '../../src/spec/faults.ts'
import type { FaultState } from '../../src/tools/inspect/protocol.ts'
import { countText } from '../format.ts'
import { Prose } from '../parts/prose.tsx'
import type { ViewProps } from './view-props.ts'

/** Values on each slider; the first is the absence of the setting. */
const SLIDERS = {
  drop: ['', '0.1%', '0.2%', '0.5%', '1%', '2%', '5%', '10%', '20%', '50%', '100%'],
  corrupt: ['', '0.1%', '0.2%', '0.5%', '1%', '2%', '5%', '10%', '20%', '50%'],
  dup: ['', '0.1%', '0.5%', '1%', '2%', '5%', '10%', '20%', '50%'],
  reorder: ['', '0.1%', '0.5%', '1%', '2%', '5%', '10%', '20%', '50%'],
  delay: ['', '0.1ms', '1ms', '2ms', '5ms', '10ms', '20ms', '50ms', '100ms', '500ms'],
  rate: ['', '10gbit', '1gbit', '100mbit', '10mbit', '1mbit'],
} as const
type Name = keyof typeof SLIDERS

/** Milliseconds without a further change until a slider takes effect. */
const SETTLE = 150
const REFRESH = 1000

/** The settings of a rule, in their order. */
const settingsOf = (rule: string): [name: string, value: string][] =>
  rule
    .split(',')
    .filter(part => part.includes('='))
    .map(part => part.split('=', 2) as [string, string])

const withSetting = (rule: string, name: string, value: string): string => {
  const settings = settingsOf(rule)
  const index = settings.findIndex(([other]) => other === name)
  if (value === '')
    return settings
      .filter(([other]) => other !== name)
      .map(pair => pair.join('='))
      .join(',')
  if (index >= 0) settings[index] = [name, value]
  else settings.push([name, value])
  return settings.map(pair => pair.join('=')).join(',')
}

const UNITS: Readonly<Record<string, number>> = { '%': 0.01, us: 0.001, s: 1000, kbit: 1e3, mbit: 1e6, gbit: 1e9 }

/** A share from 0 to 1, milliseconds, or bits per second: the daemon writes values without units. */
const numberOf = (text: string): number => {
  const [, digits = '0', unit = ''] = /^([\d.]+)([a-z%]*)$/.exec(text) ?? []
  return Number(digits) * (UNITS[unit] ?? 1)
}

/** The position of a value on its slider: that of the nearest one. */
const positionOf = (values: readonly string[], text: string | undefined): number => {
  if (text === undefined) return 0
  const distance = (value: string): number => Math.abs(numberOf(value || '0') - numberOf(text))
  return values.reduce((best, value, i) => (distance(value) < distance(values[best]!) ? i : best), 0)
}

export const Faults = ({ store }: ViewProps) => {
  const [rules, setRules] = useState<readonly FaultState[]>([])
  const [draft, setDraft] = useState('')
  const [problem, setProblem] = useState('')
  const [chosen, setChosen] = useState(0)
  const isEdited = useRef(false)
  const timer = useRef<ReturnType<typeof setTimeout> | undefined>(undefined)

  const show = (state: readonly FaultState[]): void => {
    setRules(state)
    if (!isEdited.current) setDraft(state.map(({ rule }) => rule).join('\n'))
  }
  const apply = async (text: string): Promise<void> => {
    const lines = text.split(/[\n;]/).map(line => line.trim())
    try {
      const state = await store.source.faults(lines.filter(line => line !== '').join(';'))
      isEdited.current = false
      setProblem('')
      show(state)
    } catch (error) {
      setProblem(error instanceof Error ? error.message : String(error))
    }
  }
  useEffect(() => {
    const refresh = (): void => {
      store.source.faults().then(show, (error: Error) => setProblem(error.message))
    }
    refresh()
    const interval = setInterval(refresh, REFRESH)
    return () => clearInterval(interval)
  }, [store])

  const lines = draft.split('\n')
  const current = lines[Math.min(chosen, lines.length - 1)] ?? ''
  const values = new Map(settingsOf(current))
  const slide = (name: Name, value: string): void => {
    isEdited.current = true
    const next = lines.with(Math.min(chosen, lines.length - 1), withSetting(current, name, value)).join('\n')
    setDraft(next)
    clearTimeout(timer.current)
    timer.current = setTimeout(() => void apply(next), SETTLE)
  }
  return (
    <div class="page">
      <div class="columns">
        <section>
          <h2>
            Sliders{' '}
            <span class="quiet">
              {lines.length > 1 ? `of rule ${Math.min(chosen, lines.length - 1) + 1}` : 'of the rule'}
            </span>
          </h2>
          {(Object.keys(SLIDERS) as Name[]).map(name => {
            const steps = SLIDERS[name]
            const text = values.get(name)
            return (
              <label class="slider" key={name}>
                <span class="mono">{name}</span>
                <input
                  type="range"
                  min={0}
                  max={steps.length - 1}
                  value={positionOf(steps, text)}
                  aria-valuetext={text ?? 'off'}
                  onInput={event => slide(name, steps[Number(event.currentTarget.value)] ?? '')}
                />
                <output class="mono">{text ?? 'off'}</output>
                <span class="quiet">
                  <Prose text={FaultSettings[name].help} />
                </span>
              </label>
            )
          })}
          <button
            type="button"
            class="chip"
            disabled={rules.length === 0}
            onClick={() => {
              isEdited.current = false
              void apply('')
            }}
          >
            No faults
          </button>
        </section>
        <section>
          <h2>
            Rules <span class="quiet">one in each line; every rule that matches a packet acts on it</span>
          </h2>
          <textarea
            aria-label="Fault rules"
            spellcheck={false}
            rows={6}
            value={draft}
            placeholder="drop=1%"
            onInput={event => {
              isEdited.current = true
              setDraft(event.currentTarget.value)
            }}
            onSelect={event => {
              const { value, selectionStart } = event.currentTarget
              setChosen(value.slice(0, selectionStart).split('\n').length - 1)
            }}
          />
          <p>
            <button type="button" class="chip" onClick={() => void apply(draft)}>
              Apply
            </button>
          </p>
          {problem !== '' && (
            <p class="bad" role="alert">
              <Prose text={problem} />
            </p>
          )}
          <dl class="facts help-list">
            {Object.values(FaultSettings).map(({ example, help }) => (
              <div key={example}>
                <dt class="mono">{example}</dt>
                <dd>
                  <Prose text={help} />
                </dd>
              </div>
            ))}
          </dl>
        </section>
      </div>
      <section>
        <h2>What they have done</h2>
        {rules.length === 0 ? (
          <p class="quiet">There are no rules: the network loses nothing.</p>
        ) : (
          <table class="compact">
            <thead>
              <tr>
                <th>Rule</th>
                <th class="num">Packets that match</th>
                <th class="num">Faults</th>
              </tr>
            </thead>
            <tbody>
              {rules.map(({ rule, matched, faults }) => (
                <tr key={rule}>
                  <td class="mono">{rule}</td>
                  <td class="num">{countText(matched)}</td>
                  <td class="num">{countText(faults)}</td>
                </tr>
              ))}
            </tbody>
          </table>
        )}
      </section>
    </div>
  )
}
