/*
 * Small parts that several views use.
 */
import type { ComponentChildren } from 'preact'

export const Empty = ({ title, children }: { readonly title: string; readonly children?: ComponentChildren }) => (
  <div class="empty">
    <p class="empty-title">{title}</p>
    {children}
  </div>
)

/** For `ref`: what scrolls must be reachable with the keyboard. */
export const takeFocus = (element: HTMLElement | null): void => {
  if (element !== null) element.tabIndex = 0
}

/** Names with their values. */
export const Facts = ({ of }: { readonly of: readonly (readonly [name: string, value: ComponentChildren])[] }) => (
  <dl class="facts">
    {of.map(([name, value]) => (
      <div key={name}>
        <dt>{name}</dt>
        <dd>{value}</dd>
      </div>
    ))}
  </dl>
)

/** A cell of a row: of a long command the end is cut, never the process id. */
export const Process = ({ of }: { readonly of: { readonly command: string; readonly pid: number } | undefined }) => (
  <span role="gridcell" class="process" title={of && `${of.command} ${of.pid}`}>
    {of && (
      <>
        <span>{of.command}</span> <span>{of.pid}</span>
      </>
    )}
  </span>
)
