/*
 * A choice among many: a select of at most `MAX_OPTIONS`, and above that number a box that searches all of them.
 */
import { useMemo, useState } from 'preact/hooks'
import { countText } from '../format.ts'

/** Options in the document: browsers need seconds for 10,000. */
const MAX_OPTIONS = 500

interface ChoiceProps<T> {
  /** For screen readers: `Queue pair`. */
  readonly label: string
  readonly all: readonly T[]
  /** Always among the options. */
  readonly current: T
  readonly idOf: (one: T) => number
  readonly textOf: (one: T) => string
  readonly onChoose: (id: string) => void
}

export const Choice = <T,>({ label, all, current, idOf, textOf, onChoose }: ChoiceProps<T>) => {
  const [search, setSearch] = useState('')
  const words = search.trim().toLowerCase()
  const found = useMemo(
    () => (words === '' ? all : all.filter(one => textOf(one).toLowerCase().includes(words))),
    [all, all.length, words],
  )
  const options = found.slice(0, MAX_OPTIONS)
  const id = idOf(current)
  if (!options.some(one => idOf(one) === id)) options.unshift(current)
  return (
    <>
      {all.length > MAX_OPTIONS && (
        <>
          <input
            type="search"
            class="choice-search"
            aria-label={`Search: ${label}`}
            placeholder={`Search ${countText(all.length)}`}
            value={search}
            onInput={event => setSearch(event.currentTarget.value)}
            onKeyDown={event => event.key !== 'Escape' && event.stopPropagation()}
          />
          <span class="quiet" role="status">
            {found.length > MAX_OPTIONS ? `${countText(MAX_OPTIONS)} of ` : ''}
            {countText(found.length)}
          </span>
        </>
      )}
      <label>
        <span class="sr">{label}</span>
        <select value={id} onChange={event => onChoose(event.currentTarget.value)}>
          {options.map(one => (
            <option key={idOf(one)} value={idOf(one)}>
              {textOf(one)}
            </option>
          ))}
        </select>
      </label>
    </>
  )
}
