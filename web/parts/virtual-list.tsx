/*
 * A list of any length, of which only the visible rows are in the document.
 */
import type { ComponentChildren } from 'preact'
import { useEffect, useLayoutEffect, useRef, useState } from 'preact/hooks'

/** Rows above and below the visible ones. */
const OVERSCAN = 6
/** Rows in the document at most, on the highest of screens. */
const MAX_ROWS = 110

interface VirtualListProps {
  readonly label: string
  readonly count: number
  /** Pixels of each row. */
  readonly rowHeight: number
  readonly render: (index: number) => ComponentChildren
  /** The row to bring into view, each time it changes. */
  readonly shown?: number | undefined
  /** Whether to stay at the end, while the user is there. */
  readonly followsEnd?: boolean
  readonly onEnd?: (() => void) | undefined
  readonly onKeyDown?: ((event: KeyboardEvent) => void) | undefined
  readonly class?: string
}

export const VirtualList = (props: VirtualListProps) => {
  const { label, count, rowHeight, render, shown, followsEnd = false, onEnd, onKeyDown } = props
  const box = useRef<HTMLDivElement>(null)
  const [top, setTop] = useState(0)
  const [height, setHeight] = useState(800)
  const isAtEnd = useRef(false)

  useLayoutEffect(() => {
    const element = box.current!
    const observer = new ResizeObserver(() => setHeight(element.clientHeight))
    observer.observe(element)
    setHeight(element.clientHeight)
    return () => observer.disconnect()
  }, [])

  useLayoutEffect(() => {
    const element = box.current!
    if (shown === undefined) return
    const at = shown * rowHeight
    if (at < element.scrollTop || at + rowHeight > element.scrollTop + element.clientHeight)
      element.scrollTop = Math.max(0, at - element.clientHeight / 3)
  }, [shown, rowHeight])

  useEffect(() => {
    if (followsEnd && isAtEnd.current) box.current!.scrollTop = box.current!.scrollHeight
  }, [count, followsEnd])

  const first = Math.max(0, Math.floor(top / rowHeight) - OVERSCAN)
  const last = Math.min(count, first + Math.min(MAX_ROWS, Math.ceil(height / rowHeight) + 2 * OVERSCAN))
  const rows: ComponentChildren[] = []
  for (let i = first; i < last; i++) rows.push(render(i))

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
      role="listbox"
      aria-label={`${label}, ${count} rows`}
      tabIndex={0}
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
