/*
 * Parts of views with a list and details beside it.
 */
import { CopyButton } from './copy.tsx'

interface DetailHeadProps {
  readonly title: string
  readonly text: string
  readonly onClose: () => void
  /** The text of the row, for the clipboard. */
  readonly copied?: () => string
}

export const DetailHead = ({ title, text, onClose, copied }: DetailHeadProps) => (
  <header>
    <div>
      <h2>{title}</h2>
      <p>{text}</p>
    </div>
    {copied && <CopyButton text={copied} />}
    <button type="button" class="close" aria-label="Close the details (Esc)" onClick={onClose}>
      ✕
    </button>
  </header>
)

/** The keys of a list: from row to row, and Esc. `select`: with undefined, no row. */
export const stepOf =
  (selected: number, count: number, select: (index: number | undefined) => void) =>
  (event: KeyboardEvent): void => {
    if (event.ctrlKey || event.metaKey || event.altKey) return
    const by = { ArrowDown: 1, j: 1, ArrowUp: -1, k: -1 }[event.key]
    if (by !== undefined && count > 0) {
      event.preventDefault()
      select(Math.max(0, Math.min(count - 1, selected + by)))
    } else if (event.key === 'Escape') select(undefined)
  }
