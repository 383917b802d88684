/**
 * Sets the dark or light theme before the page is drawn: the visitor's earlier choice, otherwise
 * the system's. It is not a module, so that the page does not flash.
 */
{
  const KEY = 'ooblex-theme';
  const root = document.documentElement;
  const kept = () => {
    try {
      return localStorage.getItem(KEY);
    } catch {
      return null;
    }
  };
  if (['light', 'dark'].includes(kept())) root.dataset.theme = kept();

  addEventListener('DOMContentLoaded', () => {
    const button = document.querySelector('#theme');
    const system = matchMedia('(prefers-color-scheme: dark)');
    const isDark = () => (root.dataset.theme ?? (system.matches ? 'dark' : 'light')) === 'dark';
    const tell = () => {
      button.ariaPressed = String(isDark());
      document.querySelector('meta[name=theme-color]').content = isDark() ? '#0b0c10' : '#f5f3ee';
    };
    button.addEventListener('click', () => {
      root.dataset.theme = isDark() ? 'light' : 'dark';
      try {
        localStorage.setItem(KEY, root.dataset.theme);
      } catch {
        // Without storage, the choice is not remembered.
      }
      tell();
      dispatchEvent(new Event('themechange'));
    });
    system.addEventListener('change', tell);
    tell();
  });
}
