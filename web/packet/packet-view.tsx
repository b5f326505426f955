/*
 * A packet: its fields by header, and its bytes. The field under the pointer or focus marks its bytes, and the other
 * way.
 */
import { useMemo, useState } from 'preact/hooks'
import { hexText } from '../format.ts'
import { type PacketField, packetHeaders } from './fields.ts'

/** Bytes in one line. */
const LINE = 8
/** More recorded payload is not shown. */
const MAX_BYTES = 256

export const PacketView = ({ bytes }: { readonly bytes: Uint8Array }) => {
  const headers = useMemo(() => packetHeaders(bytes), [bytes])
  const [active, setActive] = useState<PacketField | undefined>(undefined)
  const fields = headers.flatMap(header => header.fields)
  const shown = bytes.subarray(0, MAX_BYTES)
  /** The next field of a byte with several, each time it is pressed. */
  const pick = (at: number): void => {
    const here = fields.filter(({ start, end }) => at >= start && at < end)
    const index = active === undefined ? -1 : here.indexOf(active)
    setActive(here[(index + 1) % here.length])
  }
  const headerAt = (at: number): number => headers.findIndex(({ start, end }) => at >= start && at < end)
  const lines = Array.from({ length: Math.ceil(shown.length / LINE) }, (_, i) => i * LINE)
  return (
    <div class="packet">
      <div class="bytes">
        {lines.map(line => (
          <div class="bytes-line" key={line}>
            <span class="bytes-at">{hexText(line, 2).slice(2)}</span>
            {[...shown.subarray(line, line + LINE)].map((byte, i) => {
              const at = line + i
              const isMarked = active !== undefined && at >= active.start && at < active.end
              return (
                <button
                  type="button"
                  key={at}
                  class={`byte h${headerAt(at) % 4}${isMarked ? ' marked' : ''}`}
                  aria-label={`byte ${at}: ${byte.toString(16).padStart(2, '0')}`}
                  onClick={() => pick(at)}
                  onMouseEnter={() => setActive(fields.find(({ start, end }) => at >= start && at < end))}
                >
                  {byte.toString(16).padStart(2, '0')}
                </button>
              )
            })}
          </div>
        ))}
      </div>
      {headers.map(({ name, title, start, end, fields: list }, number) => (
        <section class="header" key={start}>
          <h4 class={`h${number % 4}`}>
            {name} <span>{title}</span>
            <span class="header-at">{`bytes ${start}–${end - 1}`}</span>
          </h4>
          {list.map(field => (
            <button
              type="button"
              key={field.filter}
              class={`field${field === active ? ' marked' : ''}`}
              title={field.filter}
              onMouseEnter={() => setActive(field)}
              onFocus={() => setActive(field)}
            >
              <span class="field-name">
                {field.name}
                {field.bits === '' ? '' : <small> {field.bits}</small>}
              </span>
              <span class="field-value">{field.text}</span>
            </button>
          ))}
        </section>
      ))}
      {headers.length === 0 && <p class="quiet">The packet is too short for a header.</p>}
    </div>
  )
}
