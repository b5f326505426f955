/*
 * The address of what is shown, in the fragment of the URL: `#/ladder?qp=12&at=1064857.153`. Links to it work in each
 * page that shows the same session.
 */
import { useEffect, useState } from 'preact/hooks'

export interface Route {
  readonly view: string
  readonly params: URLSearchParams
}

export const parseRoute = (hash: string): Route => {
  const [path = '', query = ''] = hash.replace(/^#\/?/, '').split('?')
  return { view: path, params: new URLSearchParams(query) }
}

export const linkTo = (view: string, params: Readonly<Record<string, string | number | undefined>> = {}): string => {
  const entries = Object.entries(params).filter(([, value]) => value !== undefined && value !== '')
  const query = new URLSearchParams(entries.map(([name, value]) => [name, String(value)])).toString()
  return `#/${view}${query === '' ? '' : `?${query}`}`
}

export const goTo = (link: string): void => {
  location.hash = link
}

/** Changes a parameter of the current address, without an entry in the history. */
export const setParam = (name: string, value: string | number | undefined): void => {
  const { view, params } = parseRoute(location.hash)
  const link = linkTo(view, { ...Object.fromEntries(params), [name]: value })
  if (link === location.hash) return
  history.replaceState(null, '', link)
  dispatchEvent(new Event('hashchange'))
}

export const useRoute = (): Route => {
  const [route, setRoute] = useState(() => parseRoute(location.hash))
  useEffect(() => {
    const update = (): void => setRoute(parseRoute(location.hash))
    addEventListener('hashchange', update)
    return () => removeEventListener('hashchange', update)
  }, [])
  return route
}
