/*
 * The frame around the views: navigation, the state of the recording, theme, keys.
 */
import { Component, type ComponentChildren, type ComponentType } from 'preact'
import { useEffect, useLayoutEffect, useRef, useState } from 'preact/hooks'
import { problemsOf } from './data/losses.ts'
import type { Store } from './data/store.ts'
import { bytesText, clockText, countText, plural } from './format.ts'
import { Ladder } from './ladder/ladder.tsx'
import { Empty, takeFocus } from './parts/basics.tsx'
import { Prose } from './parts/prose.tsx'
import { Share } from './parts/share.tsx'
import { Symbols } from './parts/stack.tsx'
import { useStore } from './parts/use-store.ts'
import { focusList, sendKey } from './parts/virtual-list.tsx'
import { goTo, linkTo, useRoute } from './route.ts'
import { chooseTheme, chosenTheme, THEMES } from './theme.ts'
import { Calls } from './views/calls.tsx'
import { Charts } from './views/charts.tsx'
import { Faults } from './views/faults.tsx'
import { Findings } from './views/findings.tsx'
import { Lends } from './views/lends.tsx'
import { Objects } from './views/objects.tsx'
import { Overview } from './views/overview.tsx'
import { States } from './views/states.tsx'
import { Times } from './views/times.tsx'
import type { ViewProps } from './views/view-props.ts'

interface View {
  readonly name: string
  readonly title: string
  readonly view: ComponentType<ViewProps>
  /** Absent: always. */
  readonly isShown?: (store: Store) => boolean
  /** A number beside the title; 0: none. */
  readonly count?: (store: Store) => number
}

const VIEWS: readonly View[] = [
  { name: 'overview', title: 'Overview', view: Overview },
  { name: 'ladder', title: 'Ladder', view: Ladder },
  { name: 'objects', title: 'Objects', view: Objects },
  { name: 'states', title: 'States', view: States },
  { name: 'calls', title: 'Calls', view: Calls },
  { name: 'charts', title: 'Charts', view: Charts },
  { name: 'times', title: 'Times', view: Times },
  {
    name: 'findings',
    title: 'Findings',
    view: Findings,
    count: ({ facts }) => problemsOf(facts),
  },
  { name: 'lends', title: 'Lent memory', view: Lends, isShown: ({ facts }) => facts.lends.ranges.length > 0 },
  { name: 'faults', title: 'Faults', view: Faults, isShown: ({ source }) => source.about.hasFaults },
]

// ---- theme ----

const ThemeButton = () => {
  const [theme, setTheme] = useState(chosenTheme)
  const next = THEMES[(THEMES.indexOf(theme) + 1) % THEMES.length]!
  return (
    <button
      type="button"
      class="chip"
      onClick={() => {
        chooseTheme(next)
        setTheme(next)
      }}
      aria-label={`Colours: ${theme}. Change to ${next}`}
    >
      {theme === 'auto' ? '◐' : theme === 'light' ? '○' : '●'} {theme}
    </button>
  )
}

// ---- the state of the recording ----

const ReadingState = ({ store }: { readonly store: Store }) => {
  const { facts, readState, bytesDone, bytesTotal, session } = store
  const parts: string[] = []
  if (store.isDisconnected) parts.push('not connected to `userdma inspect`')
  if (store.notice) parts.push(store.notice)
  if (facts.lost > 0) parts.push(`${plural(facts.lost, 'event')} lost while recording`)
  if (facts.damaged > 0) parts.push(`${plural(facts.damaged, 'event')} could not be read: the recording is damaged`)
  if (facts.skipped > 0) parts.push(`${plural(facts.skipped, 'event')} skipped: more arrived than the page could read`)
  if (session.damaged > 0) parts.push(`${plural(session.damaged, 'part')} of the file cannot be read`)
  return (
    <>
      {parts.map(text => (
        <p class="notice" role="status" key={text}>
          <Prose text={text} />.
        </p>
      ))}
      {readState === 'paused' && (
        <p class="notice" role="status">
          Tables and charts show the first {countText(facts.events)} of{' '}
          {countText(session.events - session.overwritten)} events ({bytesText(bytesDone)} of {bytesText(bytesTotal)})
          {store.isDisconnected
            ? '.'
            : `: more does not fit into the ${bytesText(store.source.memory.total)} that the page keeps. The ladder shows all.`}{' '}
          <button type="button" class="link" onClick={() => store.readAll()}>
            {store.isDisconnected ? 'Read on' : 'Read all'}
          </button>
        </p>
      )}
      {readState === 'reading' && bytesTotal > 2 ** 20 && (
        <p class="reading">
          <progress max={bytesTotal} value={bytesDone} aria-label="Reading the session" />
          <span>
            Reading: {bytesText(bytesDone)} of {bytesText(bytesTotal)}
          </span>
        </p>
      )}
    </>
  )
}

const KEYS = [
  ['1 – 9', 'views'],
  ['↓ ↑ or j k', 'next and previous row of a list'],
  ['→ ←', 'cells of a row'],
  ['Page ↓ ↑, Home, End', 'by pages, to the ends of a list or row'],
  ['Enter', 'details of the row'],
  ['n p', 'next and previous problem, loss or repetition'],
  ['/', 'filter'],
  ['c', 'copy the row whose details are shown'],
  ['Esc', 'close the details'],
  ['?', 'this help'],
] as const

const Help = ({ onClose }: { readonly onClose: () => void }) => {
  const dialog = useRef<HTMLDialogElement>(null)
  // The browser keeps the focus in a modal dialog, closes it at Esc, and gives the focus back.
  useLayoutEffect(() => {
    const element = dialog.current!
    element.showModal()
    return () => element.close()
  }, [])
  return (
    <dialog ref={dialog} class="help" aria-label="Keys" onClose={onClose}>
      <h2>Keys</h2>
      <dl class="facts">
        {KEYS.map(([key, text]) => (
          <div key={key}>
            <dt>{key}</dt>
            <dd>{text}</dd>
          </div>
        ))}
      </dl>
      <button type="button" class="chip" onClick={() => dialog.current?.close()}>
        Close
      </button>
    </dialog>
  )
}

const LIST_KEYS = /^(?:[jknp]|Arrow.*|Page.*|Home|End|Escape)$/

const isDetail = (target: EventTarget | null): boolean =>
  target instanceof Element && target.closest('.detail') !== null

/**
 * Shows a sentence in place of a view that cannot show a record: a file that was made by others may have any content.
 */
class Guard extends Component<{ readonly children: ComponentChildren }, { readonly problem: string | undefined }> {
  override state = { problem: undefined }

  static override getDerivedStateFromError(error: unknown) {
    return { problem: error instanceof Error ? error.message : String(error) }
  }

  override render() {
    const { problem } = this.state
    return problem === undefined ? (
      this.props.children
    ) : (
      <Empty title="This view cannot show the session">
        <p role="alert">A record of the file has unexpected content ({problem}).</p>
      </Empty>
    )
  }
}

export const App = ({ store }: { readonly store: Store }) => {
  useStore(store)
  const route = useRoute()
  const [isHelpShown, setHelpShown] = useState(false)
  const views = VIEWS.filter(({ isShown }) => isShown?.(store) ?? true)
  const current = route.view === '' ? views[0] : views.find(({ name }) => name === route.view)
  const { name, isLive, hosts } = store.source.about

  useEffect(() => {
    document.title = `${current?.title ?? 'userdma'} · ${name}`
    const onKey = (event: KeyboardEvent): void => {
      const isTyping = event.target instanceof Element && event.target.closest('input, select, textarea') !== null
      if (isTyping || event.ctrlKey || event.metaKey || event.altKey) return
      if (event.key === '?') setHelpShown(shown => !shown)
      if (document.querySelector('dialog[open]') !== null) return
      const view = views[Number(event.key) - 1]
      if (view !== undefined) goTo(linkTo(view.name))
      else if (event.key === '/') {
        const filter = document.querySelector<HTMLElement>('.filter input')
        if (filter === null) return
        event.preventDefault()
        filter.focus()
      }
      // The list takes keys without having the focus, which stays on a link after a click. Details scroll with arrows.
      else if (
        !event.defaultPrevented &&
        (isDetail(event.target) ? /^(?:[jknp]|Escape)$/ : LIST_KEYS).test(event.key)
      ) {
        if (!sendKey(event.key)) return
        event.preventDefault()
        if (event.key === 'Escape') focusList()
      }
    }
    addEventListener('keydown', onKey)
    return () => removeEventListener('keydown', onKey)
  }, [current, name, views.length])

  // Of a row of views that is wider than the window, the current one is in sight.
  const nav = useRef<HTMLElement>(null)
  useLayoutEffect(() => {
    const show = (): void =>
      nav.current?.querySelector('[aria-current]')?.scrollIntoView({ block: 'nearest', inline: 'center' })
    show()
    addEventListener('resize', show)
    return () => removeEventListener('resize', show)
  }, [current])

  const Current = current?.view
  return (
    <div class="app">
      <header class="top">
        <h1 class="brand">userdma</h1>
        <nav aria-label="Views" ref={nav}>
          {views.map(view => {
            const count = view.count?.(store) ?? 0
            return (
              <a key={view.name} href={linkTo(view.name)} aria-current={view === current ? 'page' : undefined}>
                {view.title}
                {count > 0 && <span class="badge">{countText(count)}</span>}
              </a>
            )
          })}
        </nav>
        {hosts !== undefined && (
          <select
            class="chip"
            aria-label="Host"
            value={name}
            onChange={event => store.source.choose(event.currentTarget.value)}
          >
            {hosts.map(host => (
              <option key={host}>{host}</option>
            ))}
          </select>
        )}
        <span
          class="session-name"
          title={`${name}, recorded by ${store.session.header.application} from ${clockText(store.session.header.origin)}`}
        >
          {isLive && <span class="live">live</span>}
          {name.split('/').at(-1)}
        </span>
        <Share source={store.source} />
        <ThemeButton />
        <button type="button" class="chip" aria-label="Keys (?)" onClick={() => setHelpShown(true)}>
          ?
        </button>
      </header>
      <ReadingState store={store} />
      <main ref={takeFocus}>
        {Current ? (
          <Guard key={current?.name}>
            <Symbols.Provider value={store.facts.symbols}>
              <Current store={store} route={route} />
            </Symbols.Provider>
          </Guard>
        ) : (
          <Empty title={`There is no view "${route.view}"`} />
        )}
      </main>
      {isHelpShown && <Help onClose={() => setHelpShown(false)} />}
    </div>
  )
}
