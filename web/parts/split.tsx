/*
 * Parts of views with a list and details beside it.
 */
import { CopyButton } from './copy.tsx'
import { focusList } from './virtual-list.tsx'

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
    <button
      type="button"
      class="close"
      aria-label="Close the details (Esc)"
      onClick={() => {
        onClose()
        focusList()
      }}
    >
      ✕
    </button>
  </header>
)
