/*
 * A button, and the key `c`, that copy the text of the row whose details are shown.
 */
import { useEffect, useState } from 'preact/hooks'
import { copyText } from './clipboard.ts'

/** `text`: of the row. It may take long, so it is made when it is wanted. */
export const CopyButton = ({ text }: { readonly text: () => string }) => {
  const [said, setSaid] = useState('')
  const copy = async (): Promise<void> => setSaid((await copyText(text())) ? 'Copied' : 'Not possible here')
  useEffect(() => {
    setSaid('')
    const onKey = (event: KeyboardEvent): void => {
      const isTyping = event.target instanceof Element && event.target.closest('input, select, textarea') !== null
      if (event.key !== 'c' || isTyping || event.ctrlKey || event.metaKey || event.altKey) return
      event.preventDefault()
      void copy()
    }
    addEventListener('keydown', onKey)
    return () => removeEventListener('keydown', onKey)
  }, [text])
  return (
    <button type="button" class="chip copy" aria-label="Copy the row (c)" title="Copy the row (c)" onClick={copy}>
      <span role="status">{said || 'Copy'}</span>
    </button>
  )
}
