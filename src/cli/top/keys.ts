/*
 * The keys of `userdma top`: what each changes in the view.
 */
import { MAX_INTERVAL, MIN_INTERVAL } from '../command-line/options.ts'
import { type OrderKey, orders } from './rates.ts'
import type { View } from './screen.ts'

/** What a key does beside changing the view. */
type KeyEffect = 'quit' | 'look' | undefined

const ESCAPE = '\x1b'
const CTRL_C = '\x03'
const BACKSPACE = /^[\b\x7f]$/

/** Queue pairs to scroll by, in screens (`pages`) or lines, by the terminal's sequence. */
const SCROLLS: Readonly<Record<string, { readonly lines?: number; readonly pages?: number }>> = {
  '\x1b[A': { lines: -1 },
  '\x1b[B': { lines: 1 },
  '\x1b[5~': { pages: -1 },
  '\x1b[6~': { pages: 1 },
  '\x1b[H': { lines: Number.NEGATIVE_INFINITY },
  '\x1b[F': { lines: Number.POSITIVE_INFINITY },
}

/** The keys in what a terminal sent: sequences of the arrows and so on, and single characters. */
export const keysOf = (text: string): readonly string[] => text.match(/\p{Cc}\[[0-9;]*[A-Z~]|[\s\S]/gu) ?? []

const typed = (view: View, text: string, key: string): View => {
  if (key === ESCAPE) return { ...view, typing: undefined }
  if (BACKSPACE.test(key)) return { ...view, typing: text.slice(0, -1) }
  if (key !== '\r' && key !== '\n') return /^[\d.]$/.test(key) ? { ...view, typing: text + key } : view
  const seconds = text === '' ? view.delay : Number(text)
  const delay = Math.min(Math.max(Number.isNaN(seconds) ? view.delay : seconds, MIN_INTERVAL), MAX_INTERVAL)
  return { ...view, typing: undefined, delay }
}

/** The view after a key. `total`: the number of queue pairs; `visible`: of those on the screen. */
export const afterKey = (
  view: View,
  key: string,
  total: number,
  visible: number,
): { readonly view: View; readonly effect: KeyEffect } => {
  const seen = (changed: View, effect?: KeyEffect) => ({ view: changed, effect })
  if (key === CTRL_C) return seen(view, 'quit')
  if (view.typing !== undefined) return seen(typed(view, view.typing, key))
  const scroll = SCROLLS[key]
  if (scroll !== undefined) {
    const moved = view.first + (scroll.lines ?? 0) + (scroll.pages ?? 0) * visible
    return seen({ ...view, first: Math.max(0, Math.min(moved, total - visible)) })
  }
  const upper = key.toUpperCase()
  if (upper === 'Q') return seen(view, 'quit')
  if (key === ' ' || key === '\r') return seen(view, 'look')
  if (upper === 'H' || key === '?') return seen({ ...view, help: !view.help })
  if (upper === 'R') return seen({ ...view, reverse: !view.reverse, first: 0 })
  if (upper === 'D') return seen({ ...view, typing: '' })
  if (Object.hasOwn(orders, upper)) return seen({ ...view, order: upper as OrderKey, first: 0 })
  return seen(view)
}
