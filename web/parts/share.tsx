/*
 * Saves a live session, and copies a link for another browser.
 */
import { useState } from 'preact/hooks'
import type { Source } from '../data/source.ts'
import { copyText } from './clipboard.ts'
import { Prose } from './prose.tsx'

/** Milliseconds after which a browser has begun to save. */
const SAVE_TIME = 60_000

const saveAs = (name: string, blob: Blob): void => {
  const link = document.createElement('a')
  link.href = URL.createObjectURL(blob)
  link.download = name
  link.click()
  setTimeout(() => URL.revokeObjectURL(link.href), SAVE_TIME)
}

/** `session-2026-11-26T07-08-09.udr`. */
const fileName = (): string => `session-${new Date().toISOString().slice(0, 19).replaceAll(':', '-')}.udr`

export const Share = ({ source }: { readonly source: Source }) => {
  const [said, setSaid] = useState('')
  /** A link that could not be copied: the user copies it. */
  const [link, setLink] = useState('')
  const [isSaving, setSaving] = useState(false)
  const { save, link: linkFor } = source
  const attempt = async (act: () => Promise<string>): Promise<void> => {
    setLink('')
    try {
      setSaid(await act())
    } catch (error) {
      setSaid(error instanceof Error ? error.message : String(error))
    }
  }
  return (
    <>
      {save && (
        <button
          type="button"
          class="chip"
          disabled={isSaving}
          title="Save all that was recorded so far as a session file"
          onClick={async () => {
            setSaving(true)
            await attempt(async () => {
              saveAs(fileName(), await save())
              return 'Saved'
            })
            setSaving(false)
          }}
        >
          {isSaving ? 'Saving …' : 'Save'}
        </button>
      )}
      {linkFor && (
        <button
          type="button"
          class="chip"
          title="Copy a link that opens this view in another browser, once"
          onClick={() =>
            attempt(async () => {
              const text = await linkFor(location.hash.replace(/^#\/?/, '/'))
              if (await copyText(text)) return 'Copied: the link works once'
              setLink(text)
              return 'Copy this link, which works once:'
            })
          }
        >
          Copy link
        </button>
      )}
      <span class="quiet said" role="status">
        <Prose text={said} />{' '}
        {link !== '' && (
          <input readOnly aria-label="Link" value={link} onFocus={event => event.currentTarget.select()} />
        )}
      </span>
    </>
  )
}
