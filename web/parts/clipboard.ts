/*
 * Puts text into the clipboard. Browsers have their interface for it on secure pages only, which those of another
 * machine are not.
 */

/** Returns whether the browser has taken the text. */
export const copyText = async (text: string): Promise<boolean> => {
  try {
    await navigator.clipboard.writeText(text)
    return true
  } catch {
    const before = document.activeElement
    const area = document.createElement('textarea')
    area.value = text
    area.className = 'sr'
    area.setAttribute('aria-hidden', 'true')
    document.body.append(area)
    area.select()
    const isTaken = document.execCommand('copy')
    area.remove()
    if (before instanceof HTMLElement) before.focus()
    return isTaken
  }
}
