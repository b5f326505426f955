/*
 * A list of any length, of which only the visible rows are in the document: a grid of ARIA. One of its rows takes the
 * focus, and the selection follows it; arrows to the sides go to the cells of the row
 * (https://www.w3.org/WAI/ARIA/apg/patterns/treegrid/#keyboardinteraction).
 */
import type { ComponentChildren } from 'preact'
import { useEffect, useLayoutEffect, useRef, useState } from 'preact/hooks'

/** Rows above and below the visible ones. */
const OVERSCAN = 6
/** Rows in the document at most, on the highest of screens. */
const MAX_ROWS = 110

/** Of the element of each row. Its children are the cells, with the role `gridcell`. */
export interface RowAttributes {
  readonly role: 'row'
  readonly tabIndex: number
  readonly 'aria-rowindex': number
  readonly 'aria-selected': boolean
  readonly onClick: (() => void) | undefined
}

const listOfView = (): HTMLElement | null => document.querySelector('.list')

/** Gives the list of the view the focus, after the part of the page that had it is gone. */
export const focusList = (): void =>
  (listOfView()?.querySelector<HTMLElement>('[tabindex="0"]') ?? listOfView())?.focus()

/**
 * Gives the list of the view a key that was pressed elsewhere. Returns whether it has taken it: there may be no list.
 */
export const sendKey = (key: string): boolean =>
  listOfView()?.dispatchEvent(new KeyboardEvent('keydown', { key, cancelable: true })) === false

interface VirtualListProps {
  readonly label: string
  readonly count: number
  readonly columns: number
  /** Pixels of each row. */
  readonly rowHeight: number
  readonly render: (index: number, attributes: RowAttributes) => ComponentChildren
  /** Whether a row can be selected; absent: all can. */
  readonly isRow?: (index: number) => boolean
  /** The selected row, which comes into view each time it changes. */
  readonly selected: number | undefined
  /** `undefined`: no row. */
  readonly onSelect: (index: number | undefined) => void
  /** Whether to stay at the end, while the user is there. */
  readonly followsEnd?: boolean
  readonly onEnd?: (() => void) | undefined
  /** The rows to which `n` and `p` go; absent: none. */
  readonly isProblem?: (index: number) => boolean
  readonly class?: string
}

export const VirtualList = (props: VirtualListProps) => {
  const { label, count, columns, rowHeight, render, isRow = () => true, isProblem, selected, onSelect } = props
  const { followsEnd = false, onEnd } = props
  const box = useRef<HTMLDivElement>(null)
  const [top, setTop] = useState(0)
  const [height, setHeight] = useState(800)
  /** The row that takes the focus; undefined: no row was selected yet. */
  const [active, setActive] = useState<number>()
  const isAtEnd = useRef(false)
  /** Whether the next change of `selected` is the answer to `onSelect`. */
  const isAsked = useRef(false)
  /** The cell that gets the focus when its row is in the document; -1: the row itself. */
  const focused = useRef<number | undefined>(undefined)
  const hadFocus = box.current?.contains(document.activeElement) ?? false

  useLayoutEffect(() => {
    const element = box.current!
    const observer = new ResizeObserver(() => setHeight(element.clientHeight))
    observer.observe(element)
    setHeight(element.clientHeight)
    return () => observer.disconnect()
  }, [])

  useLayoutEffect(() => {
    if (selected !== undefined && !isAsked.current) setActive(selected)
    isAsked.current = false
  }, [selected])

  useLayoutEffect(() => {
    const element = box.current!
    if (active === undefined) return
    const at = active * rowHeight
    if (at < element.scrollTop || at + rowHeight > element.scrollTop + element.clientHeight)
      element.scrollTop = Math.max(0, at - element.clientHeight / 3)
  }, [active, rowHeight])

  useEffect(() => {
    if (followsEnd && isAtEnd.current) box.current!.scrollTop = box.current!.scrollHeight
  }, [count, followsEnd])

  const rowOf = (index: number): Element | null => box.current!.querySelector(`[aria-rowindex="${index + 1}"]`)
  const stop = Math.min(active ?? 0, count - 1)
  useLayoutEffect(() => {
    const element = box.current!
    // The row with the focus leaves the document when the user scrolls: then the list has the focus until it is back.
    const isLost = hadFocus && !element.contains(document.activeElement)
    if (!isLost && focused.current === undefined && document.activeElement !== element) return
    const row = rowOf(stop)
    focusOn(row?.children[focused.current ?? -1] ?? row ?? element)
    if (row !== null) focused.current = undefined
  })

  const first = Math.max(0, Math.min(Math.floor(top / rowHeight) - OVERSCAN, count - 1))
  const last = Math.min(count, first + Math.min(MAX_ROWS, Math.ceil(height / rowHeight) + 2 * OVERSCAN))

  const select = (index: number | undefined): void => {
    isAsked.current = index !== selected
    if (index !== undefined) setActive(index)
    onSelect(index)
  }
  /** Goes to a row, or the next one in a direction that can be selected. */
  const goTo = (index: number, by: 1 | -1, cell: number, isWanted = isRow): void => {
    let i = Math.max(0, Math.min(count - 1, index))
    while (i >= 0 && i < count && !isWanted(i)) i += by
    if (i < 0 || i >= count) return
    focused.current = cell
    // The row may be in the document and selected: then nothing is drawn.
    if (i === active && i === selected) focusOn(rowOf(i)?.children[cell] ?? rowOf(i))
    else select(i)
  }
  const onKeyDown = (event: KeyboardEvent): void => {
    const { key, ctrlKey, metaKey, altKey } = event
    const isEnd = key === 'Home' || key === 'End'
    if (event.defaultPrevented || metaKey || altKey || (ctrlKey && !isEnd)) return
    const row = rowOf(stop)
    const cells = [...(row?.children ?? [])]
    const cell = cells.findIndex(one => one.contains(document.activeElement))
    const page = Math.max(1, Math.floor(height / rowHeight) - 1)
    const here = active === undefined ? -1 : stop
    const down = (): void => goTo(here + 1, 1, cell)
    const up = (): void => goTo(here - 1, -1, cell)
    const actions: Readonly<Record<string, () => unknown>> = {
      ArrowDown: down,
      j: down,
      ArrowUp: up,
      k: up,
      ...(isProblem && {
        n: () => here + 1 < count && goTo(here + 1, 1, cell, isProblem),
        p: () => here !== 0 && goTo((active === undefined ? count : here) - 1, -1, cell, isProblem),
      }),
      PageDown: () => goTo(here + page, here + page < count ? 1 : -1, cell),
      PageUp: () => goTo(here - page, 1, cell),
      Home: () => (cell < 0 || ctrlKey ? goTo(0, 1, ctrlKey ? Math.min(cell, 0) : cell) : focusOn(cells[0])),
      End: () =>
        cell < 0 || ctrlKey ? goTo(count - 1, -1, cell < 0 ? cell : cells.length - 1) : focusOn(cells.at(-1)),
      ArrowRight: () => focusOn(cells[cell + 1]),
      ArrowLeft: () => focusOn(cell > 0 ? cells[cell - 1] : row),
      Enter: () => goTo(stop, 1, cell),
      Escape: () => select(undefined),
    }
    const action = actions[key]
    if (action === undefined || count === 0) return
    event.preventDefault()
    action()
  }

  const rows: ComponentChildren[] = []
  for (let i = first; i < last; i++)
    rows.push(
      render(i, {
        role: 'row',
        tabIndex: i === stop ? 0 : -1,
        'aria-rowindex': i + 1,
        'aria-selected': i === selected,
        onClick: isRow(i) ? () => select(i === selected ? undefined : i) : undefined,
      }),
    )

  const onScroll = (): void => {
    const element = box.current!
    setTop(element.scrollTop)
    isAtEnd.current = element.scrollTop + element.clientHeight >= element.scrollHeight - rowHeight
    if (isAtEnd.current) onEnd?.()
  }
  return (
    <div
      ref={box}
      class={`list ${props.class ?? ''}`}
      role="grid"
      aria-label={`${label}, ${count} rows`}
      aria-rowcount={count}
      aria-colcount={columns}
      tabIndex={stop >= first && stop < last ? -1 : 0}
      onScroll={onScroll}
      onKeyDown={onKeyDown}
    >
      <div class="list-space" style={{ height: `${count * rowHeight}px` }}>
        <div class="list-rows" style={{ transform: `translateY(${first * rowHeight}px)` }}>
          {rows}
        </div>
      </div>
    </div>
  )
}

/** The list scrolls itself. Cells take the focus by keys only, so that a click focuses their row. */
const focusOn = (element: Element | null | undefined): void => {
  if (!(element instanceof HTMLElement)) return
  const isCell = element.getAttribute('role') === 'gridcell'
  if (isCell) element.tabIndex = -1
  element.focus({ preventScroll: !isCell })
}
