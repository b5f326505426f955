/*
 * Pages of a list that is not virtual.
 */
import { countText } from '../format.ts'
import { setParam } from '../route.ts'

interface PagesProps {
  /** The parameter of the address. */
  readonly param: string
  /** From 0. */
  readonly page: number
  readonly size: number
  readonly count: number
  readonly label: string
  /** Called before another page is shown. */
  readonly onGo?: () => void
}

/** The page, from 0, that the address asks for, or the nearest that exists. */
export const pageOf = (text: string | null, size: number, count: number): number => {
  const page = Math.floor(Number(text ?? 1)) - 1
  return Math.max(0, Math.min(Number.isFinite(page) ? page : 0, Math.ceil(count / size) - 1))
}

/** Links to the other pages of a list, with what this one has; nothing if there is only one page. */
export const Pages = ({ param, page, size, count, label, onGo }: PagesProps) => {
  if (count <= size) return null
  const from = page * size
  const go = (to: number): void => {
    onGo?.()
    setParam(param, to === 0 ? undefined : to + 1)
  }
  return (
    <nav class="toolbar" aria-label={`Pages of ${label}`}>
      <button type="button" class="chip" disabled={page === 0} onClick={() => go(page - 1)}>
        Previous
      </button>
      <span role="status">
        {countText(from + 1)} to {countText(Math.min(count, from + size))} of {countText(count)}
      </span>
      <button type="button" class="chip" disabled={from + size >= count} onClick={() => go(page + 1)}>
        Next
      </button>
    </nav>
  )
}
