/*
 * The page of `userdma inspect`: opens the session, then draws.
 */
import { render } from 'preact'
import { App } from './app.tsx'
import { findSource } from './data/source.ts'
import { Store } from './data/store.ts'
import { Empty } from './parts/basics.tsx'
import { Prose } from './parts/prose.tsx'
import { startTheme } from './theme.ts'

const root = document.getElementById('app')!

const start = async (): Promise<void> => {
  startTheme()
  render(<Empty title="Opening the session …" />, root)
  try {
    const store = await Store.open(await findSource())
    render(<App store={store} />, root)
  } catch (error) {
    const text = error instanceof Error ? error.message : String(error)
    render(
      <Empty title="The session cannot be shown">
        <p role="alert">
          <Prose text={text} />.
        </p>
      </Empty>,
      root,
    )
  }
}

void start()
