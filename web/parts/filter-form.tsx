/*
 * The filter of a view, which the address has as its parameter `filter`.
 */
import type { ComponentChildren } from 'preact'
import { useState } from 'preact/hooks'
import { setParam } from '../route.ts'
import { Prose } from './prose.tsx'

export interface FilterFormProps {
  /** The present filter. */
  readonly source: string
  /** For screen readers. */
  readonly label: string
  readonly placeholder: string
  /** Why the filter is not valid; '': it is. */
  readonly problem: string
  /** The id of the list of suggestions among the children. */
  readonly list?: string
  readonly children?: ComponentChildren
}

export const FilterForm = ({ source, label, placeholder, problem, list, children }: FilterFormProps) => {
  const [edited, setEdited] = useState({ source, text: source })
  // A link and the browser's Back change the address without this form: a draft belongs to the filter it was made from.
  const draft = edited.source === source ? edited.text : source
  const setDraft = (text: string): void => setEdited({ source, text })
  return (
    <form
      class="filter"
      onSubmit={event => {
        event.preventDefault()
        setParam('filter', draft.trim())
      }}
    >
      <input
        type="search"
        aria-label={label}
        aria-invalid={problem !== ''}
        placeholder={placeholder}
        {...(list !== undefined && { list })}
        value={draft}
        onInput={event => setDraft(event.currentTarget.value)}
        onKeyDown={event => event.key !== 'Escape' && event.stopPropagation()}
        onSearch={() => draft === '' && setParam('filter', undefined)}
      />
      {children}
    </form>
  )
}

export const FilterProblem = ({ problem }: { readonly problem: string }) =>
  problem === '' ? null : (
    <p class="filter-problem" role="alert">
      <Prose text={problem} />
    </p>
  )
