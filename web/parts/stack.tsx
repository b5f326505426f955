/*
 * Stacks, with functions, lines and source where the recording has them. The page reads no source file.
 */
import { createContext } from 'preact'
import { useContext } from 'preact/hooks'
import { frameText, ownFrame } from '../../src/spec/check/frames.ts'
import { printable } from '../../src/spec/printable.ts'
import type { SymbolFrame } from '../../src/spec/session-events.ts'
import { SessionSymbols } from '../../src/tools/record/symbols.ts'

/** The symbols of the session. */
export const Symbols = createContext(new SessionSymbols())

const MAX_FRAMES = 40

const Source = ({ line, source }: SymbolFrame) => (
  <ol class="source" start={source!.first}>
    {source!.lines.map((text, i) => (
      <li key={source!.first + i} aria-current={source!.first + i === line ? 'location' : undefined}>
        {printable(text.replaceAll('\t', '    ')) || ' '}
      </li>
    ))}
  </ol>
)

/** A stack, innermost frame first. The source of the first frame of the program is shown at once. */
export const StackView = ({ stack }: { readonly stack: readonly string[] }) => {
  const frames = useContext(Symbols).framesOf(stack).slice(0, MAX_FRAMES)
  if (frames.length === 0) return null
  const first = frames.findIndex(({ file, source }) => source !== undefined && !file?.startsWith('/usr/'))
  return (
    <ol class="stack">
      {frames.map((frame, i) => (
        <li key={`${i} ${frame.function}`}>
          {frame.source === undefined ? (
            printable(frameText(frame))
          ) : (
            <details open={i === first}>
              <summary>{printable(frameText(frame))}</summary>
              <Source {...frame} />
            </details>
          )}
        </li>
      ))}
    </ol>
  )
}

/** The innermost frame of the program itself, rather than of a header or library of the system. */
export const Caller = ({ stack }: { readonly stack: readonly string[] }) => {
  const frames = useContext(Symbols).framesOf(stack)
  const frame =
    ownFrame(frames.filter(({ object, function: name }) => !/^\/(?:usr\/)?lib/.test(object ?? name))) ?? frames[0]
  return <>{frame && printable(frameText(frame))}</>
}
