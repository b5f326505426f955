/*
 * The colours of the page: those of the browser, or the ones that the user has chosen. The attribute `data-theme` of
 * the document is always `light` or `dark`; style.css has a palette for each.
 */
export const THEMES = ['auto', 'light', 'dark'] as const
type Theme = (typeof THEMES)[number]

const KEY = 'userdma theme'

/** Pages in files of some browsers have no storage. */
const storedTheme = (): Theme => {
  try {
    return THEMES.find(theme => theme === localStorage.getItem(KEY)) ?? 'auto'
  } catch {
    return 'auto'
  }
}

const darkScheme = matchMedia('(prefers-color-scheme: dark)')
let chosen = storedTheme()

export const chosenTheme = (): Theme => chosen

const show = (): void => {
  const scheme = darkScheme.matches ? 'dark' : 'light'
  document.documentElement.dataset.theme = chosen === 'auto' ? scheme : chosen
}

/** Before the first drawing: without the attribute there are no colours. */
export const startTheme = (): void => {
  show()
  darkScheme.addEventListener('change', show)
}

export const chooseTheme = (theme: Theme): void => {
  chosen = theme
  show()
  try {
    localStorage.setItem(KEY, theme)
  } catch {}
}

/** Calls `draw` when the colours may have changed, until the returned function is called. */
export const onThemeChange = (draw: () => void): (() => void) => {
  const observer = new MutationObserver(draw)
  observer.observe(document.documentElement, { attributeFilter: ['data-theme'] })
  return () => observer.disconnect()
}
