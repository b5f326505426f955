/*
 * Draws a component again when the store has changed.
 */
import { useEffect, useState } from 'preact/hooks'
import type { Store } from '../data/store.ts'

export const useStore = (store: Store): number => {
  const [version, setVersion] = useState(store.version)
  useEffect(() => {
    // A short session may have been read since the component was drawn.
    setVersion(store.version)
    return store.subscribe(() => setVersion(store.version))
  }, [store])
  return version
}
